"""The rules that find a property's place in botocore's models."""

from __future__ import annotations

from typing import Any

import pytest

from localcloud.provider.calls import input_shape, output_shape
from localcloud.provider.equality import same
from localcloud.provider.errors import PlacementError
from localcloud.provider.matching import decapitalised, from_aws, place, to_aws
from localcloud.provider.naming import Naming
from localcloud.provider.values import UNKNOWN, bare_map, is_unknown, wrapped_map


@pytest.mark.parametrize(
    ("name", "member"),
    [
        ("identifier", "DBInstanceIdentifier"),
        ("password", "MasterUserPassword"),
        ("backupWindow", "PreferredBackupWindow"),
        ("iamDatabaseAuthenticationEnabled", "EnableIAMDatabaseAuthentication"),
        ("multiAz", "MultiAZ"),
        ("username", "MasterUsername"),
        ("noSuchThing", None),
    ],
)
def test_a_name_is_placed_by_rule(name: str, member: str | None) -> None:
    assert place(name, input_shape("rds", "CreateDBInstance"), ("db", "dbinstance")) == member


def test_a_short_name_never_lands_on_a_member_that_only_ends_like_one() -> None:
    assert place("name", input_shape("ecs", "UpdateCluster"), ("cluster",)) is None


def test_lists_blocks_maps_and_texts_take_the_shape_that_aws_asks_for() -> None:
    shape = input_shape("s3", "PutBucketLifecycleConfiguration", "LifecycleConfiguration")
    rule = {
        "id": "a",
        "status": "Enabled",
        "filter": {"and": {"prefix": "db/", "tags": {"k": "v"}}},
        "expiration": {"days": 3.0},
    }
    assert to_aws({"rules": [rule]}, shape, "x") == {
        "Rules": [
            {
                "ID": "a",
                "Status": "Enabled",
                "Filter": {"And": {"Prefix": "db/", "Tags": [{"Key": "k", "Value": "v"}]}},
                "Expiration": {"Days": 3},
            }
        ]
    }


def test_unknowns_pass_through_and_nested_strays_are_named_with_their_path() -> None:
    shape: Any = input_shape("ecs", "CreateCluster")
    assert to_aws({"settings": [{"name": UNKNOWN}]}, shape, "x") == {"settings": [{"name": UNKNOWN}]}
    with pytest.raises(PlacementError, match=r"x\.settings\[0\]\.shade"):
        to_aws({"settings": [{"shade": "dark"}]}, shape, "x")


def test_what_aws_says_comes_back_in_the_programs_words_and_order() -> None:
    shape: Any = output_shape("ecs", "DescribeClusters", "clusters[].settings")
    actual = [{"name": "b", "value": "2"}, {"name": "a", "value": "1"}]
    declared = [{"name": "a", "value": 1}, {"name": "b", "value": "2"}]
    assert from_aws(actual, shape, declared) == declared
    drifted = from_aws([{"name": "a", "value": "9"}], shape, [{"name": "a", "value": "1"}])
    assert drifted == [{"name": "a", "value": "9"}]


@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [
        (
            '{"Statement":[{"Action":["s3:*"],"Effect":"Allow"}]}',
            '{"Statement": {"Effect": "Allow", "Action": "s3:*"}}',
            True,
        ),
        ('{"Statement":[{"Action":["a","b"]}]}', '{"Statement":[{"Action":["b","a"]}]}', True),
        ('{"Statement":[{"Action":["a"]}]}', '{"Statement":[{"Action":["b"]}]}', False),
        (["x", "y"], ["y", "x"], True),
        ("256", 256, True),
        (True, "true", True),
        ({"a": 1, "b": None}, {"a": "1"}, True),
        ("a", "A", False),
    ],
)
def test_equal_means_equal_to_aws(left: Any, right: Any, expected: bool) -> None:  # noqa: FBT001  # a table's column
    assert same(left, right) is expected


@pytest.mark.parametrize(
    ("member", "name"), [("KMSKeyId", "kmsKeyId"), ("Name", "name"), ("ARN", "arn"), ("DBName", "dbName")]
)
def test_a_name_that_no_program_gave_is_made_from_the_members(member: str, name: str) -> None:
    assert decapitalised(member) == name


def test_a_made_name_depends_on_the_seed_alone_and_keeps_to_the_limit() -> None:
    naming = Naming(limit=20, lower=True)
    first = naming.make("A-rather-long-Resource", None, b"seed")
    assert (
        first
        == naming.make("A-rather-long-Resource", None, b"seed")
        != naming.make("A-rather-long-Resource", None, b"x")
    )
    assert len(first) == 20
    assert first == first.lower()
    assert naming.make("x", "wished-", b"seed").startswith("wished-")


def test_values_survive_the_engines_form_with_secrets_and_unknowns() -> None:
    values = {"n": 5, "f": 1.5, "b": True, "l": [1, {"k": "v"}], "u": UNKNOWN, "s": "hush", "gone": None}
    there = wrapped_map(values, {"s"})
    back, secret = bare_map(there)
    assert back == {name: value for name, value in values.items() if name != "gone"}
    assert secret == {"s"}
    assert is_unknown({"deep": [UNKNOWN]})
