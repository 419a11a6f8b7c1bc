"""Replication groups are Redis servers, with their members, tokens and end."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import redis
from botocore.exceptions import ClientError

if TYPE_CHECKING:
    from conftest import RunningCloud
    from mypy_boto3_elasticache import ElastiCacheClient

pytestmark = pytest.mark.slow

FAST: Any = {"Delay": 0.05, "MaxAttempts": 1200}
TOKEN = "a-token-of!enough#length"
_numbers = itertools.count()

Create = Callable[..., dict[str, Any]]


def describe(elasticache: ElastiCacheClient, name: str) -> dict[str, Any]:
    group: Any = elasticache.describe_replication_groups(ReplicationGroupId=name)["ReplicationGroups"][0]
    return dict(group)


@pytest.fixture
def create(elasticache: ElastiCacheClient) -> Iterator[Create]:
    """Return a maker of available groups, deleted afterwards."""
    made: list[str] = []

    def make(**options: Any) -> dict[str, Any]:
        name = f"cache-{next(_numbers)}"
        arguments: dict[str, Any] = {
            "ReplicationGroupId": name,
            "ReplicationGroupDescription": "a cache",
            "CacheNodeType": "cache.t4g.micro",
            "Engine": "redis",
            "TransitEncryptionEnabled": True,
        }
        elasticache.create_replication_group(**(arguments | options))
        made.append(name)
        elasticache.get_waiter("replication_group_available").wait(ReplicationGroupId=name, WaiterConfig=FAST)
        return describe(elasticache, name)

    yield make
    for name in made:
        try:
            elasticache.delete_replication_group(ReplicationGroupId=name)
        except elasticache.exceptions.ReplicationGroupNotFoundFault:
            continue  # the test deleted it itself


def ping(group: dict[str, Any], token: str | None = None, endpoint: str = "PrimaryEndpoint") -> bool:
    address = group["NodeGroups"][0][endpoint]
    with redis.Redis(host=address["Address"], port=address["Port"], password=token, socket_timeout=20) as client:
        return bool(client.ping())


def test_a_group_answers_at_both_endpoints_with_its_token_only(create: Create) -> None:
    group = create(AuthToken=TOKEN)
    assert ping(group, TOKEN)
    assert ping(group, TOKEN, "ReaderEndpoint")
    with pytest.raises(redis.exceptions.AuthenticationError):
        ping(group)
    with pytest.raises(redis.exceptions.AuthenticationError):
        ping(group, "another-token-of-length")


def test_the_token_is_on_no_command_line_and_in_no_file(create: Create, cloud: RunningCloud) -> None:
    create(AuthToken=TOKEN)
    for process in cloud.processes():
        assert TOKEN not in " ".join(process.cmdline())
        assert TOKEN not in str(process.environ())
    files = [path for path in Path(cloud.home).rglob("*") if path.is_file() and path.stat().st_size < 1_000_000]
    assert files
    assert not [path for path in files if TOKEN.encode() in path.read_bytes()]


@pytest.mark.parametrize("engine", ["redis", "valkey"])
def test_the_members_a_group_names_can_be_described(
    create: Create, elasticache: ElastiCacheClient, engine: str
) -> None:
    group = create(NumCacheClusters=2, AutomaticFailoverEnabled=True, MultiAZEnabled=True, Engine=engine)
    name = group["ReplicationGroupId"]
    assert group["MemberClusters"] == [f"{name}-001", f"{name}-002"]
    members = [
        elasticache.describe_cache_clusters(CacheClusterId=member)["CacheClusters"][0]
        for member in group["MemberClusters"]
    ]
    assert [member["ReplicationGroupId"] for member in members] == [name, name]
    assert [member["CacheClusterStatus"] for member in members] == ["available", "available"]
    assert [member["PreferredAvailabilityZone"] for member in members] == ["us-west-2a", "us-west-2b"]
    assert [member["Engine"] for member in members] == [engine, engine]


def test_deleting_a_group_takes_its_members_and_its_server_at_once(
    create: Create, elasticache: ElastiCacheClient, cloud: RunningCloud
) -> None:
    group = create(NumCacheClusters=2)
    name = group["ReplicationGroupId"]
    answer = elasticache.delete_replication_group(ReplicationGroupId=name)["ReplicationGroup"]
    assert answer["Status"] == "deleting"
    with pytest.raises(elasticache.exceptions.ReplicationGroupNotFoundFault):
        describe(elasticache, name)
    with pytest.raises(elasticache.exceptions.CacheClusterNotFoundFault):
        elasticache.describe_cache_clusters(CacheClusterId=f"{name}-001")
    with pytest.raises(redis.exceptions.ConnectionError):
        ping(group)
    assert name not in {row["name"] for row in cloud.rows()}


def test_a_token_is_rotated_then_set_as_on_elasticache(create: Create, elasticache: ElastiCacheClient) -> None:
    group = create(AuthToken=TOKEN)
    name, newer = group["ReplicationGroupId"], "a-newer-token-of-length"
    elasticache.modify_replication_group(
        ReplicationGroupId=name, AuthToken=newer, AuthTokenUpdateStrategy="ROTATE", ApplyImmediately=True
    )
    assert ping(group, TOKEN)
    assert ping(group, newer)
    elasticache.modify_replication_group(
        ReplicationGroupId=name, AuthToken=newer, AuthTokenUpdateStrategy="SET", ApplyImmediately=True
    )
    assert ping(group, newer)
    with pytest.raises(redis.exceptions.AuthenticationError):
        ping(group, TOKEN)


def test_modifying_what_changes_only_the_record_is_kept(create: Create, elasticache: ElastiCacheClient) -> None:
    group = create()
    elasticache.modify_replication_group(
        ReplicationGroupId=group["ReplicationGroupId"],
        ReplicationGroupDescription="another text",
        SnapshotWindow="02:00-03:00",
        ApplyImmediately=True,
    )
    now = describe(elasticache, group["ReplicationGroupId"])
    assert now["Description"] == "another text"
    assert now["SnapshotWindow"] == "02:00-03:00"


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"AuthToken": "short"}, "16 to 128"),
        ({"AuthToken": TOKEN, "TransitEncryptionEnabled": False}, "encryption-in-transit"),
        ({"NumCacheClusters": 1, "AutomaticFailoverEnabled": True}, "at least 2 cache clusters"),
        ({"NumNodeGroups": 3}, "one node group"),
    ],
)
def test_what_elasticache_refuses_is_refused(create: Create, options: dict[str, Any], text: str) -> None:
    with pytest.raises(ClientError, match=text):
        create(**options)


def test_two_groups_both_have_the_port_they_asked_for(create: Create) -> None:
    first, second = create(Port=6390), create(Port=6390)
    assert ping(first)
    assert ping(second)
    assert first["NodeGroups"][0]["PrimaryEndpoint"]["Port"] == 6390


def test_a_subnet_group_can_be_deleted_once_no_group_uses_it(
    create: Create, elasticache: ElastiCacheClient, cloud: RunningCloud
) -> None:
    ec2 = cloud.client("ec2", "us-west-2")
    vpc = ec2.create_vpc(CidrBlock="10.9.0.0/16")["Vpc"]["VpcId"]
    subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.9.1.0/24")["Subnet"]["SubnetId"]
    elasticache.create_cache_subnet_group(
        CacheSubnetGroupName="caches", CacheSubnetGroupDescription="for caches", SubnetIds=[subnet]
    )
    group = create(CacheSubnetGroupName="caches")["ReplicationGroupId"]
    with pytest.raises(ClientError, match="CacheSubnetGroupInUse"):
        elasticache.delete_cache_subnet_group(CacheSubnetGroupName="caches")
    elasticache.delete_replication_group(ReplicationGroupId=group)
    elasticache.delete_cache_subnet_group(CacheSubnetGroupName="caches")
    with pytest.raises(ClientError, match="CacheSubnetGroupNotFoundFault"):
        elasticache.describe_cache_subnet_groups(CacheSubnetGroupName="caches")
    with pytest.raises(ClientError, match="CacheSubnetGroupNotFoundFault"):
        elasticache.delete_cache_subnet_group(CacheSubnetGroupName="caches")
