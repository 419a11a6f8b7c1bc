"""What the provider will not do, and how it says so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pulumi
import pulumi_aws as aws
import pytest
from pulumi import automation as auto

from localcloud.provider.calls import require_loopback
from localcloud.provider.errors import ProviderError
from localcloud.provider.settings import settings_from

# The automation server of a program that ends leaves its event loop to the collector, which says so.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:4566", "http://localhost:1", "http://[::1]:4566", "http://s3.localhost:4566"]
)
def test_loopback_endpoints_are_taken(url: str) -> None:
    assert require_loopback(url, "here") == url


@pytest.mark.parametrize(
    "url",
    [
        "https://s3.amazonaws.com",
        "http://localhost.example.com",
        "http://127.0.0.1.example.com",
        "http://10.0.0.1:4566",
        "http://0.0.0.0:4566",
        "http://localhost@example.com",
        "not a url",
    ],
)
def test_endpoints_elsewhere_are_refused_whatever_they_look_like(url: str) -> None:
    with pytest.raises(ProviderError, match="not a loopback address"):
        require_loopback(url, "AWS_ENDPOINT_URL")


def test_without_an_endpoint_nothing_is_configured() -> None:
    with pytest.raises(ProviderError, match="localcloud env"):
        settings_from({}, {"AWS_REGION": "us-east-1"})


@pytest.mark.parametrize(
    ("arguments", "environment"),
    [
        ({"endpoints": '[{"s3": "https://s3.amazonaws.com"}]'}, {"AWS_ENDPOINT_URL": "http://127.0.0.1:1"}),
        ({}, {"AWS_ENDPOINT_URL": "http://127.0.0.1:1", "AWS_ENDPOINT_URL_S3": "https://s3.amazonaws.com"}),
        ({}, {"AWS_ENDPOINT_URL": "https://aws.example.com"}),
    ],
)
def test_every_way_to_name_an_endpoint_is_checked(arguments: dict[str, Any], environment: dict[str, str]) -> None:
    with pytest.raises(ProviderError, match="not a loopback address"):
        settings_from(arguments, environment)


def test_the_explicit_providers_json_text_is_understood() -> None:
    settings = settings_from(
        {
            "region": "us-west-2",
            "endpoints": '[{"s3": "http://127.0.0.1:1"}]',
            "defaultTags": '{"tags": {"owner": "me"}}',
            "skipRegionValidation": "true",
        },
        {},
    )
    assert (settings.region, settings.default_tags) == ("us-west-2", {"owner": "me"})


def _failure(stack: Any, program: Callable[[], None]) -> str:
    stack.program = program
    with pytest.raises(auto.CommandError) as caught:
        stack.stack.preview()
    return str(caught.value)


@pytest.mark.slow
def test_the_engine_is_told_what_cannot_be_served_by_name(deployment: Any) -> None:
    stack = deployment()

    def unknown_type() -> None:
        aws.sns.Topic("topic")

    assert "type aws:sns/topic:Topic is not served by the embedded provider" in _failure(stack, unknown_type)

    def unsupported_property() -> None:
        aws.s3.Bucket("bucket", acl="private")

    text = _failure(stack, unsupported_property)
    assert "aws:s3/bucket:Bucket" in text
    assert "acl: not served by the embedded provider" in text
    assert "BucketAcl" in text

    def unknown_property() -> None:
        pulumi.CustomResource("aws:ecs/cluster:Cluster", "cluster", {"colour": "green"})

    text = _failure(stack, unknown_property)
    assert "aws:ecs/cluster:Cluster" in text
    assert "colour: the table of types cannot place it" in text

    def unknown_nested_property() -> None:
        pulumi.CustomResource(
            "aws:ecs/cluster:Cluster", "cluster", {"settings": [{"name": "containerInsights", "shade": "dark"}]}
        )

    assert "settings[0].shade" in _failure(stack, unknown_nested_property)

    def unknown_function() -> None:
        aws.ec2.get_ami(owners=["self"])

    assert "aws:ec2/getAmi:getAmi is not served" in _failure(stack, unknown_function)


@pytest.mark.slow
def test_an_endpoint_that_is_not_loopback_is_refused_by_the_running_provider(deployment: Any) -> None:
    stack = deployment("http://192.0.2.1:4566")
    assert "is not a loopback address" in _failure(stack, lambda: pulumi.export("b", aws.s3.Bucket("b").id))


@pytest.mark.slow
def test_a_refusal_of_aws_is_one_line_with_type_name_call_and_code(deployment: Any) -> None:
    stack = deployment()
    stack.program = lambda: pulumi.export(
        "s", aws.ec2.Subnet("stray", vpc_id="vpc-0missing", cidr_block="10.0.0.0/24").id
    )
    with pytest.raises(auto.CommandError) as caught:
        stack.stack.up()
    assert "aws:ec2/subnet:Subnet stray: CreateSubnet: InvalidVpcID.NotFound: " in str(caught.value)
    assert "Traceback" not in str(caught.value)
