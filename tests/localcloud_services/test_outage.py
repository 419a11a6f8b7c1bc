"""A dark region answers nothing; what lives in us-east-1 for everybody goes with it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from botocore.exceptions import ConnectionClosedError, EndpointConnectionError

CUT = (ConnectionClosedError, EndpointConnectionError)
TRUST = json.dumps({"Version": "2012-10-17", "Statement": []})


def assert_cut(call: Callable[[], Any]) -> None:
    with pytest.raises(CUT):
        call()


def make_bucket(cloud: Any, name: str, region: str) -> Any:
    client = cloud.client("s3", region)
    if region == "us-east-1":
        client.create_bucket(Bucket=name)
    else:
        client.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": region})
    client.put_object(Bucket=name, Key="k", Body=b"content")
    return client


def test_a_dark_region_answers_nothing_until_it_is_restored(cloud: Any) -> None:
    west, east = cloud.client("ec2", "us-west-2"), cloud.client("ec2", "us-east-1")
    cloud.blackout("us-west-2")
    assert_cut(west.describe_vpcs)
    assert east.describe_vpcs()["Vpcs"]
    cloud.restore("us-west-2")
    assert west.describe_vpcs()["Vpcs"]


def test_a_presigned_address_of_a_dark_region_is_cut(cloud: Any) -> None:
    client = make_bucket(cloud, "telemetry", "us-west-2")
    address = cloud.client("s3", "us-west-2", signature_version="s3v4").generate_presigned_url(
        "get_object", Params={"Bucket": "telemetry", "Key": "k"}
    )
    assert httpx.get(address).content == b"content"
    cloud.blackout("us-west-2")
    with pytest.raises(httpx.TransportError):
        httpx.get(address)
    assert_cut(lambda: client.get_object(Bucket="telemetry", Key="k"))


def test_a_bucket_in_a_dark_region_is_dark_whatever_region_asks(cloud: Any) -> None:
    make_bucket(cloud, "primary", "us-east-1")
    west = make_bucket(cloud, "backups-dr", "us-west-2")
    cloud.blackout("us-east-1")
    assert_cut(lambda: west.get_object(Bucket="primary", Key="k"))
    assert_cut(lambda: west.copy_object(Bucket="backups-dr", Key="c", CopySource={"Bucket": "primary", "Key": "k"}))
    assert west.get_object(Bucket="backups-dr", Key="k")["Body"].read() == b"content"


def test_iam_changes_go_with_us_east_1_whoever_signed_them_and_iam_reads_answer(cloud: Any) -> None:
    iam = cloud.client("iam", "us-west-2")
    iam.create_role(RoleName="before", AssumeRolePolicyDocument=TRUST)
    cloud.blackout("us-east-1")
    assert_cut(lambda: iam.create_role(RoleName="during", AssumeRolePolicyDocument=TRUST))
    assert_cut(lambda: iam.delete_role(RoleName="before"))
    assert iam.get_role(RoleName="before")["Role"]["RoleName"] == "before"
    assert cloud.client("iam", "us-east-1").list_roles()["Roles"]
    cloud.restore("us-east-1")
    iam.create_role(RoleName="after", AssumeRolePolicyDocument=TRUST)


def test_iam_does_not_depend_on_any_other_region(cloud: Any) -> None:
    cloud.blackout("us-west-2")
    cloud.client("iam", "us-west-2").create_role(RoleName="r", AssumeRolePolicyDocument=TRUST)


def test_route_53_and_cloudfront_changes_go_with_us_east_1(cloud: Any) -> None:
    route53 = cloud.client("route53", "us-west-2")
    zone = route53.create_hosted_zone(Name="example.com", CallerReference="1")["HostedZone"]["Id"]
    cloudfront = cloud.client("cloudfront", "us-west-2")
    cloud.blackout("us-east-1")
    assert_cut(lambda: route53.create_hosted_zone(Name="example.org", CallerReference="2"))
    assert_cut(lambda: route53.delete_hosted_zone(Id=zone))
    assert route53.list_hosted_zones()["HostedZones"][0]["Id"] == zone
    assert_cut(lambda: cloudfront.delete_distribution(Id="E1", IfMatch="x"))
    assert "DistributionList" in cloudfront.list_distributions()


def test_buckets_are_neither_made_nor_configured_anywhere_without_us_east_1(cloud: Any) -> None:
    west = make_bucket(cloud, "evidence-dr", "us-west-2")
    cloud.blackout("us-east-1")
    place = {"LocationConstraint": "us-west-2"}
    assert_cut(lambda: west.create_bucket(Bucket="new-one", CreateBucketConfiguration=place))
    assert_cut(lambda: west.put_bucket_versioning(Bucket="evidence-dr", VersioningConfiguration={"Status": "Enabled"}))
    assert_cut(lambda: west.delete_bucket_policy(Bucket="evidence-dr"))
    assert_cut(lambda: west.delete_bucket(Bucket="evidence-dr"))
    west.put_object(Bucket="evidence-dr", Key="journal/1", Body=b"data plane")
    assert west.list_objects_v2(Bucket="evidence-dr")["KeyCount"] == 2
    west.head_bucket(Bucket="evidence-dr")
    west.get_bucket_versioning(Bucket="evidence-dr")
    west.delete_objects(Bucket="evidence-dr", Delete={"Objects": [{"Key": "k"}]})
    west.delete_object(Bucket="evidence-dr", Key="journal/1")


def test_sts_answers_in_every_other_region(cloud: Any) -> None:
    cloud.blackout("us-east-1")
    assert cloud.client("sts", "us-west-2").get_caller_identity()["Account"] == "123456789012"
    assert_cut(cloud.client("sts", "us-east-1").get_caller_identity)


def test_several_regions_can_be_dark_and_are_restored_one_by_one(cloud: Any) -> None:
    regions = ("us-east-1", "us-west-2", "eu-west-1")
    for region in regions[:2]:
        cloud.blackout(region)
    clients = {region: cloud.client("sqs", region) for region in regions}
    assert_cut(clients["us-east-1"].list_queues)
    assert_cut(clients["us-west-2"].list_queues)
    clients["eu-west-1"].list_queues()
    cloud.restore("us-east-1")
    clients["us-east-1"].list_queues()
    assert_cut(clients["us-west-2"].list_queues)
