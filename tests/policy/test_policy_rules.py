"""Each rule finds what it is for, leaves good resources alone, and never trips over what a preview cannot know."""

from __future__ import annotations

import json
from types import ModuleType
from typing import Any

import pytest

SEALED: dict[str, dict[str, Any]] = {
    "aws:s3/bucketVersioning:BucketVersioning": {"versioningConfiguration": {"status": "Enabled"}},
    "aws:s3/bucketServerSideEncryptionConfiguration:BucketServerSideEncryptionConfiguration": {
        "rules": [{"applyServerSideEncryptionByDefault": {"sseAlgorithm": "aws:kms"}}]
    },
    "aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock": {
        "blockPublicAcls": True,
        "blockPublicPolicy": True,
        "ignorePublicAcls": True,
        "restrictPublicBuckets": True,
    },
    "aws:s3/bucketPolicy:BucketPolicy": {
        "policy": json.dumps(
            {
                "Statement": {
                    "Effect": "Deny",
                    "Principal": "*",
                    "Action": "s3:*",
                    "Condition": {"Bool": {"aws:SecureTransport": "false"}},
                }
            }
        )
    },
}
SPOILED: dict[str, dict[str, Any]] = {
    "aws:s3/bucketVersioning:BucketVersioning": {"versioningConfiguration": {"status": "Suspended"}},
    "aws:s3/bucketServerSideEncryptionConfiguration:BucketServerSideEncryptionConfiguration": {
        "rules": [{"applyServerSideEncryptionByDefault": {"sseAlgorithm": "AES256"}}]
    },
    "aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock": {
        **SEALED["aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock"],
        "restrictPublicBuckets": False,
    },
    "aws:s3/bucketPolicy:BucketPolicy": {"policy": json.dumps({"Statement": []})},
}
DATABASE = "aws:rds/instance:Instance"
GOOD_DATABASE = {
    "publiclyAccessible": False,
    "storageEncrypted": True,
    "manageMasterUserPassword": True,
    "deletionProtection": True,
    "skipFinalSnapshot": False,
}
DR = {
    "agentverse:stack": "dr",
    "agentverse:drill-id": "manual",
    "agentverse:mode": "drill",
    "agentverse:expires-at": "2100-01-01T00:00:00Z",
    "agentverse:owner": "me",
}


def _resource(rules: ModuleType, kind: str, /, **props: Any) -> Any:
    return rules.Resource(type=kind, urn=f"urn:{kind}", props=props)


def _sealed_bucket(rules: ModuleType, /, **changed: dict[str, Any] | None) -> list[Any]:
    companions = {kind: changed.get(kind, props) for kind, props in SEALED.items()}
    return [
        _resource(rules, "aws:s3/bucket:Bucket", bucket="b"),
        *(
            _resource(rules, kind, **({"bucket": "b"} | props))
            for kind, props in companions.items()
            if props is not None
        ),
    ]


def test_a_sealed_bucket_passes(rules: ModuleType) -> None:
    assert list(rules.buckets_are_sealed(_sealed_bucket(rules))) == []


@pytest.mark.parametrize("kind", sorted(SEALED))
def test_a_bucket_lacking_any_one_seal_is_found(rules: ModuleType, kind: str) -> None:
    ((urn, _),) = rules.buckets_are_sealed(_sealed_bucket(rules, **{kind: None}))
    assert urn == "urn:aws:s3/bucket:Bucket"


@pytest.mark.parametrize("kind", sorted(SPOILED))
def test_a_seal_that_is_there_but_open_is_found(rules: ModuleType, kind: str) -> None:
    assert len(list(rules.buckets_are_sealed(_sealed_bucket(rules, **{kind: SPOILED[kind]})))) == 1


@pytest.mark.parametrize("kind", sorted(SEALED))
def test_the_seal_of_another_bucket_does_not_count(rules: ModuleType, kind: str) -> None:
    assert (
        len(list(rules.buckets_are_sealed(_sealed_bucket(rules, **{kind: {**SEALED[kind], "bucket": "other"}})))) == 1
    )


@pytest.mark.parametrize("kind", sorted(SEALED))
def test_seals_that_a_preview_cannot_know_yet_do_not_fail_it(rules: ModuleType, kind: str) -> None:
    unknown = dict.fromkeys(SEALED[kind], rules.UNKNOWN)
    assert list(rules.buckets_are_sealed(_sealed_bucket(rules, **{kind: unknown}))) == []
    nameless = {**SEALED[kind], "bucket": rules.UNKNOWN}
    assert list(rules.buckets_are_sealed(_sealed_bucket(rules, **{kind: nameless}))) == []


def test_a_safe_database_passes(rules: ModuleType) -> None:
    assert list(rules.databases_are_safe(_resource(rules, DATABASE, **GOOD_DATABASE))) == []


@pytest.mark.parametrize("prop", sorted(GOOD_DATABASE))
def test_a_database_unsafe_in_any_one_way_is_found(rules: ModuleType, prop: str) -> None:
    changed = {**GOOD_DATABASE, prop: not GOOD_DATABASE[prop]}
    assert len(list(rules.databases_are_safe(_resource(rules, DATABASE, **changed)))) == 1
    unknown = {**GOOD_DATABASE, prop: rules.UNKNOWN}
    assert list(rules.databases_are_safe(_resource(rules, DATABASE, **unknown))) == []


@pytest.mark.parametrize(("mode", "violations"), [("drill", 0), ("failover", 2), (None, 2)])
def test_only_a_drills_database_may_be_deleted_just_like_that(
    rules: ModuleType, mode: str | None, violations: int
) -> None:
    tags = {"agentverse:mode": mode} if mode else {}
    props = {**GOOD_DATABASE, "deletionProtection": False, "skipFinalSnapshot": True, "tags": tags}
    assert len(list(rules.databases_are_safe(_resource(rules, DATABASE, **props)))) == violations


def test_a_cache_must_be_encrypted_both_ways_and_ask_for_a_token(rules: ModuleType) -> None:
    kind = "aws:elasticache/replicationGroup:ReplicationGroup"
    assert len(list(rules.caches_are_safe(_resource(rules, kind)))) == 3
    good = {"atRestEncryptionEnabled": True, "transitEncryptionEnabled": True, "authToken": rules.UNKNOWN}
    assert list(rules.caches_are_safe(_resource(rules, kind, **good))) == []


@pytest.mark.parametrize(
    ("kind", "props", "violations"),
    [
        ("aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule", {"cidrIpv4": "0.0.0.0/0"}, 1),
        ("aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule", {"cidrIpv6": "::/0"}, 1),
        ("aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule", {"cidrIpv4": "10.0.0.0/8"}, 0),
        ("aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule", {"referencedSecurityGroupId": "sg-1"}, 0),
        ("aws:ec2/securityGroupRule:SecurityGroupRule", {"type": "ingress", "cidrBlocks": ["0.0.0.0/0"]}, 1),
        ("aws:ec2/securityGroupRule:SecurityGroupRule", {"type": "egress", "cidrBlocks": ["0.0.0.0/0"]}, 0),
        ("aws:ec2/securityGroup:SecurityGroup", {"ingress": [{"cidrBlocks": ["0.0.0.0/0"]}]}, 1),
        ("aws:ec2/securityGroup:SecurityGroup", {"egress": [{"cidrBlocks": ["0.0.0.0/0"]}]}, 0),
    ],
)
def test_what_accepts_connections_from_everywhere_is_found(
    rules: ModuleType, kind: str, props: dict[str, Any], violations: int
) -> None:
    assert len(list(rules.nothing_is_open_to_the_world(_resource(rules, kind, **props)))) == violations


@pytest.mark.parametrize(
    ("statement", "violations"),
    [
        ({"Effect": "Allow", "Action": "*", "Resource": "*"}, 1),
        ({"Effect": "Allow", "Action": ["s3:*"], "Resource": ["*"]}, 1),
        ({"Effect": "Allow", "NotAction": "iam:*", "Resource": "*"}, 1),
        ({"Effect": "Allow", "Action": "s3:*", "Resource": "arn:aws:s3:::b/*"}, 0),
        ({"Effect": "Allow", "Action": "ecr:GetAuthorizationToken", "Resource": "*"}, 0),
        ({"Effect": "Deny", "Action": "*", "Resource": "*"}, 0),
    ],
)
def test_a_policy_that_allows_everything_on_everything_is_found(
    rules: ModuleType, statement: dict[str, Any], violations: int
) -> None:
    policy = json.dumps({"Version": "2012-10-17", "Statement": statement})
    role_policy = _resource(rules, "aws:iam/rolePolicy:RolePolicy", policy=policy)
    assert len(list(rules.permissions_are_bounded(role_policy))) == violations
    inline = _resource(rules, "aws:iam/role:Role", inlinePolicies=[{"name": "x", "policy": policy}])
    assert len(list(rules.permissions_are_bounded(inline))) == violations


def test_a_policy_that_a_preview_cannot_know_does_not_fail_it(rules: ModuleType) -> None:
    assert (
        list(rules.permissions_are_bounded(_resource(rules, "aws:iam/rolePolicy:RolePolicy", policy=rules.UNKNOWN)))
        == []
    )


def test_one_tagged_resource_makes_a_dr_stack_and_the_untagged_ones_are_found(rules: ModuleType) -> None:
    resources = [_resource(rules, "aws:ec2/vpc:Vpc", tags=DR), _resource(rules, "aws:ec2/subnet:Subnet", tags={})]
    ((urn, message),) = rules.everything_is_tagged(resources)
    assert urn == "urn:aws:ec2/subnet:Subnet"
    assert all(tag in message for tag in DR)


@pytest.mark.parametrize("tag", sorted(set(DR) - {"agentverse:stack"}))
def test_any_one_missing_tag_of_a_dr_stack_is_found(rules: ModuleType, tag: str) -> None:
    partial = {key: value for key, value in DR.items() if key != tag}
    assert len(list(rules.everything_is_tagged([_resource(rules, "aws:ec2/vpc:Vpc", tags=partial)]))) == 1


def test_a_resource_of_an_unheard_of_type_must_be_tagged_too(rules: ModuleType) -> None:
    assert list(rules.everything_is_tagged([_resource(rules, "aws:new/thing:Thing")]))
    assert list(rules.everything_is_tagged([_resource(rules, "aws:iam/rolePolicy:RolePolicy")])) == []
    assert list(rules.everything_is_tagged([_resource(rules, "agentverse:infra:Network")])) == []


@pytest.mark.parametrize(
    "kind",
    [
        "aws:iam/role:Role",
        "aws:route53/record:Record",
        "aws:s3/bucket:Bucket",
        "aws:s3/bucketPolicy:BucketPolicy",
        "aws:cloudfront/distribution:Distribution",
    ],
)
def test_a_dr_stack_may_not_need_a_control_plane_of_the_primary_region(rules: ModuleType, kind: str) -> None:
    vpc = _resource(rules, "aws:ec2/vpc:Vpc", tags=DR, region="us-west-2")
    global_ = _resource(rules, kind)
    assert len(list(rules.dr_needs_nothing_of_the_primary_region([vpc, global_]))) == 1
    primary = _resource(rules, "aws:ec2/vpc:Vpc", tags={"agentverse:stack": "primary"})
    assert list(rules.dr_needs_nothing_of_the_primary_region([primary, global_])) == []


@pytest.mark.parametrize("kind", ["aws:ec2/subnet:Subnet", "pulumi:providers:aws"])
def test_a_dr_stack_may_have_nothing_in_the_primary_region(rules: ModuleType, kind: str) -> None:
    vpc = _resource(rules, "aws:ec2/vpc:Vpc", tags=DR, region="us-west-2")
    there = _resource(rules, kind, region="us-east-1")
    assert len(list(rules.dr_needs_nothing_of_the_primary_region([vpc, there]))) == 1
    assert list(rules.dr_needs_nothing_of_the_primary_region([vpc, there], primary_region="eu-west-1")) == []


@pytest.mark.parametrize(
    ("kind", "props"),
    [
        ("aws:ec2/internetGateway:InternetGateway", {}),
        ("aws:ec2/natGateway:NatGateway", {}),
        ("aws:ec2/route:Route", {}),
        ("aws:ec2/routeTable:RouteTable", {"routes": [{"cidrBlock": "0.0.0.0/0"}]}),
        ("aws:ec2/subnet:Subnet", {"mapPublicIpOnLaunch": True}),
        ("aws:vpc/securityGroupEgressRule:SecurityGroupEgressRule", {"cidrIpv4": "0.0.0.0/0"}),
        ("aws:ec2/securityGroup:SecurityGroup", {"egress": [{"cidrBlocks": ["0.0.0.0/0"]}]}),
    ],
)
def test_a_way_out_of_a_dr_stack_is_found(rules: ModuleType, kind: str, props: dict[str, Any]) -> None:
    vpc = _resource(rules, "aws:ec2/vpc:Vpc", tags=DR)
    assert len(list(rules.dr_has_no_way_out([vpc, _resource(rules, kind, **props)]))) == 1
    assert list(rules.dr_has_no_way_out([_resource(rules, kind, **props)])) == []


def test_every_rule_says_in_one_line_what_it_is_for(rules: ModuleType) -> None:
    for rule in (*rules.RESOURCE_RULES.values(), *rules.STACK_RULES.values()):
        assert rule.__doc__
        assert rule.__doc__.partition("\n")[0].endswith(".")
