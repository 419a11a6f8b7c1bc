# ruff: noqa: INP001  # the engine runs this folder as a program, not as a package
"""The rules themselves, as plain functions over resources: no engine is needed to run, test or read them.

A resource rule looks at one resource and yields messages. A stack rule looks at all of them and yields pairs of URN
and message. A value that is not known during a preview is UNKNOWN and never violates anything: the update that knows
it is checked again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final


class _Unknown:
    def __repr__(self) -> str:
        return "UNKNOWN"


UNKNOWN: Final = _Unknown()
"""Stands for a value that a preview cannot know."""


@dataclass(frozen=True, kw_only=True)
class Resource:
    """One resource: type token, URN, and inputs (or outputs, in a stack rule) in camelCase with UNKNOWN marked."""

    type: str
    urn: str
    props: Mapping[str, Any]

    @property
    def module(self) -> str:
        """`s3` of the token `aws:s3/bucket:Bucket`; empty for what is not of AWS."""
        package, _, rest = self.type.partition(":")
        return rest.partition("/")[0].partition(":")[0] if package == "aws" else ""


ResourceRule = Callable[[Resource], Iterable[str]]
StackRule = Callable[[Sequence[Resource]], Iterable[tuple[str, str]]]

BUCKET: Final = "aws:s3/bucket:Bucket"
BUCKET_POLICY: Final = "aws:s3/bucketPolicy:BucketPolicy"
BUCKET_VERSIONING: Final = "aws:s3/bucketVersioning:BucketVersioning"
BUCKET_ENCRYPTION: Final = "aws:s3/bucketServerSideEncryptionConfiguration:BucketServerSideEncryptionConfiguration"
BUCKET_PRIVACY: Final = "aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock"
DATABASE: Final = "aws:rds/instance:Instance"
CACHE: Final = "aws:elasticache/replicationGroup:ReplicationGroup"
SECURITY_GROUP: Final = "aws:ec2/securityGroup:SecurityGroup"
INGRESS_RULES: Final = frozenset(
    {"aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule", "aws:ec2/securityGroupRule:SecurityGroupRule"}
)
EGRESS_RULE: Final = "aws:vpc/securityGroupEgressRule:SecurityGroupEgressRule"

TAG: Final = "agentverse:"
STACK_TAG: Final = f"{TAG}stack"
MODE_TAG: Final = f"{TAG}mode"
DR_TAGS: Final = frozenset(f"{TAG}{name}" for name in ("drill-id", "mode", "expires-at", "owner", "stack"))

# AWS gives these no tags. What is neither here nor tagged is a violation, so a new type is looked at once.
UNTAGGABLE: Final = frozenset(
    {
        "aws:ec2/routeTableAssociation:RouteTableAssociation",
        "aws:ecr/lifecyclePolicy:LifecyclePolicy",
        "aws:iam/rolePolicy:RolePolicy",
        "aws:kms/alias:Alias",
        "aws:s3/bucketLifecycleConfiguration:BucketLifecycleConfiguration",
        "aws:s3/bucketObjectLockConfiguration:BucketObjectLockConfiguration",
        "aws:s3/bucketOwnershipControls:BucketOwnershipControls",
        "aws:s3/bucketReplicationConfig:BucketReplicationConfig",
        "aws:secretsmanager/secretVersion:SecretVersion",
        BUCKET_ENCRYPTION,
        BUCKET_POLICY,
        BUCKET_PRIVACY,
        BUCKET_VERSIONING,
    }
)

# Their control planes are in us-east-1, whichever region is named; so is the making and configuring of every bucket.
LOST_WITH_THE_PRIMARY_REGION: Final = frozenset({"cloudfront", "iam", "route53", "s3", "s3control"})

LEADING_OUT: Final = frozenset(
    {"EgressOnlyInternetGateway", "Eip", "InternetGateway", "NatGateway", "Route", "VpcPeeringConnection"}
)

ANYWHERE: Final = frozenset({"0.0.0.0/0", "::/0"})


def databases_are_safe(resource: Resource) -> Iterator[str]:
    """No database is public or unencrypted, and only a drill's may be deleted just like that."""
    if resource.type != DATABASE:
        return
    if _is(resource.props, "publiclyAccessible", value=True):
        yield "the database is publicly accessible: set publiclyAccessible to false"
    if _is_not(resource.props, "storageEncrypted", value=True):
        yield "the database's storage is not encrypted: set storageEncrypted to true"
    if _is_not(resource.props, "manageMasterUserPassword", value=True):
        yield "the master password is not RDS's own: set manageMasterUserPassword to true, and no password"
    if _tag(resource, MODE_TAG) in {"drill", UNKNOWN}:
        return
    if _is_not(resource.props, "deletionProtection", value=True):
        yield "the database can be deleted: set deletionProtection to true (only mode drill goes without)"
    if _is(resource.props, "skipFinalSnapshot", value=True):
        yield "the database would be deleted without a final snapshot: set skipFinalSnapshot to false"


def caches_are_safe(resource: Resource) -> Iterator[str]:
    """No cache keeps or carries data unencrypted."""
    if resource.type != CACHE:
        return
    for prop in ("atRestEncryptionEnabled", "transitEncryptionEnabled"):
        if _is_not(resource.props, prop, value=True):
            yield f"the cache is not encrypted: set {prop} to true"
    if not resource.props.get("authToken"):
        yield "the cache asks nobody for a token: set authToken"


def nothing_is_open_to_the_world(resource: Resource) -> Iterator[str]:
    """No security group accepts connections from everywhere."""
    if resource.type in INGRESS_RULES:
        if resource.props.get("type") == "egress":
            return
        blocks = _addresses(resource.props)
    elif resource.type == SECURITY_GROUP:
        rules = resource.props.get("ingress")
        blocks = [block for rule in _maps(rules) for block in _addresses(rule)]
    else:
        return
    for block in blocks:
        if block in ANYWHERE:
            yield f"connections are accepted from {block}: name the security group they come from"


def permissions_are_bounded(resource: Resource) -> Iterator[str]:
    """No IAM policy allows everything of a service on everything.

    Policies of keys, endpoints and buckets are left out: they are bound to the resource they stand on.
    """
    if resource.module != "iam":
        return
    documents = [resource.props.get("policy")]
    documents += [inline.get("policy") for inline in _maps(resource.props.get("inlinePolicies"))]
    for text in documents:
        for statement in _statements(text):
            if statement.get("Effect") != "Allow":
                continue
            actions, resources = _texts(statement.get("Action")), _texts(statement.get("Resource"))
            if "NotAction" in statement or "NotResource" in statement:
                yield f"statement {statement.get('Sid', '?')} allows all but a list: list what is allowed"
            elif "*" in resources and any(action == "*" or action.endswith(":*") for action in actions):
                yield f"statement {statement.get('Sid', '?')} allows {actions} on every resource: name both"


def buckets_are_sealed(resources: Sequence[Resource]) -> Iterator[tuple[str, str]]:
    """Every bucket is versioned, encrypted with KMS, private, and refuses plain HTTP."""
    checks: tuple[tuple[str, str, Callable[[Resource], bool]], ...] = (
        (BUCKET_VERSIONING, "versioning (BucketVersioning)", _versioned),
        (BUCKET_ENCRYPTION, "KMS encryption (BucketServerSideEncryptionConfiguration)", _encrypted),
        (BUCKET_PRIVACY, "a full public access block (BucketPublicAccessBlock)", _private),
        (BUCKET_POLICY, "a policy that refuses plain HTTP (BucketPolicy)", _tls_only),
    )
    for bucket in resources:
        if bucket.type != BUCKET:
            continue
        for kind, what, holds in checks:
            companions = [resource for resource in resources if resource.type == kind and _belongs(resource, bucket)]
            if not any(holds(companion) for companion in companions):
                yield bucket.urn, f"the bucket has no {what}"


def everything_is_tagged(resources: Sequence[Resource]) -> Iterator[tuple[str, str]]:
    """Whatever can carry tags says which stack it is of; in a dr stack also drill id, mode, expiry and owner."""
    dr = _is_dr(resources)
    wanted = DR_TAGS if dr else {STACK_TAG}
    for resource in resources:
        if not resource.module or resource.type in UNTAGGABLE:
            continue
        tags = resource.props.get("tags")
        if tags is UNKNOWN:
            continue
        missing = sorted(wanted - set(tags or {}))
        if missing:
            yield (
                resource.urn,
                f"{resource.type} lacks the tags {', '.join(missing)}: teardown, sweep and reaper go by them",
            )


def dr_needs_nothing_of_the_primary_region(
    resources: Sequence[Resource], primary_region: str = "us-east-1"
) -> Iterator[tuple[str, str]]:
    """A dr stack declares nothing whose control plane goes with the primary region, and nothing in it."""
    if not _is_dr(resources):
        return
    for resource in resources:
        if resource.module in LOST_WITH_THE_PRIMARY_REGION:
            yield (
                resource.urn,
                f"{resource.type} is made by a control plane in us-east-1, which may be gone: make it in primary",
            )
        region = resource.props.get("region")
        is_provider = resource.type == "pulumi:providers:aws"
        if (resource.module or is_provider) and region == primary_region:
            yield resource.urn, f"{resource.type} is in {region}, the region whose loss this stack answers"


def dr_has_no_way_out(resources: Sequence[Resource]) -> Iterator[tuple[str, str]]:
    """A dr stack has no gateway, no public address, no route and no rule that leads out of its network."""
    if not _is_dr(resources):
        return
    for resource in resources:
        kind = resource.type.rpartition(":")[2]
        if kind in {
            "InternetGateway",
            "EgressOnlyInternetGateway",
            "NatGateway",
            "Eip",
            "Route",
            "VpcPeeringConnection",
        }:
            yield resource.urn, f"{resource.type} leads out of a network that must stay closed"
        if kind == "RouteTable" and _maps(resource.props.get("routes")):
            yield resource.urn, "the route table has routes: an isolated network has none but its own"
        if kind == "Subnet" and _is(resource.props, "mapPublicIpOnLaunch", value=True):
            yield resource.urn, "the subnet hands out public addresses"
        open_rules = [resource.props] if resource.type == EGRESS_RULE else _maps(resource.props.get("egress"))
        if any(block in ANYWHERE for rule in open_rules for block in _addresses(rule)):
            yield resource.urn, "connections may go anywhere: name the security group or prefix list they go to"


RESOURCE_RULES: Final[dict[str, ResourceRule]] = {
    "databases-are-safe": databases_are_safe,
    "caches-are-safe": caches_are_safe,
    "nothing-is-open-to-the-world": nothing_is_open_to_the_world,
    "permissions-are-bounded": permissions_are_bounded,
}

STACK_RULES: Final[dict[str, StackRule]] = {
    "buckets-are-sealed": buckets_are_sealed,
    "everything-is-tagged": everything_is_tagged,
    "dr-needs-nothing-of-the-primary-region": dr_needs_nothing_of_the_primary_region,
    "dr-has-no-way-out": dr_has_no_way_out,
}


def _is(props: Mapping[str, Any], name: str, *, value: object) -> bool:
    return props.get(name) is value


def _is_not(props: Mapping[str, Any], name: str, *, value: object) -> bool:
    found = props.get(name)
    return found is not UNKNOWN and found is not value


def _tag(resource: Resource, name: str) -> Any:
    tags = resource.props.get("tags")
    return tags.get(name) if isinstance(tags, Mapping) else tags


def _is_dr(resources: Sequence[Resource]) -> bool:
    # One tagged resource is enough: what lost its tag must not thereby leave the rules.
    return any(_tag(resource, STACK_TAG) == "dr" for resource in resources)


def _maps(value: object) -> list[Mapping[str, Any]]:
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []


def _texts(value: object) -> list[str]:
    items = value if isinstance(value, list) else [value]
    return [item for item in items if isinstance(item, str)]


def _addresses(rule: Mapping[str, Any]) -> list[str]:
    found: list[str] = []
    for name in ("cidrIpv4", "cidrIpv6", "cidrBlocks", "ipv6CidrBlocks"):
        found += _texts(rule.get(name))
    return found


def _statements(text: object) -> list[Mapping[str, Any]]:
    if isinstance(text, str):
        text = json.loads(text)
    if not isinstance(text, Mapping):
        return []
    statements = text.get("Statement")
    return _maps(statements if isinstance(statements, list) else [statements])


def _belongs(companion: Resource, bucket: Resource) -> bool:
    name = companion.props.get("bucket")
    # A name that a preview cannot know may be this bucket's.
    return name is UNKNOWN or bucket.props.get("bucket") is UNKNOWN or name == bucket.props.get("bucket")


def _versioned(companion: Resource) -> bool:
    setting = companion.props.get("versioningConfiguration")
    return setting is UNKNOWN or (isinstance(setting, Mapping) and setting.get("status") in {"Enabled", UNKNOWN})


def _encrypted(companion: Resource) -> bool:
    rules = companion.props.get("rules")
    if rules is UNKNOWN:
        return True
    defaults = [rule.get("applyServerSideEncryptionByDefault") for rule in _maps(rules)]
    return any(
        default is UNKNOWN or (isinstance(default, Mapping) and default.get("sseAlgorithm") in {"aws:kms", UNKNOWN})
        for default in defaults
    )


def _private(companion: Resource) -> bool:
    names = ("blockPublicAcls", "blockPublicPolicy", "ignorePublicAcls", "restrictPublicBuckets")
    return all(companion.props.get(name) in {True, UNKNOWN} for name in names)


def _tls_only(companion: Resource) -> bool:
    policy = companion.props.get("policy")
    if policy is UNKNOWN:
        return True
    return any(
        statement.get("Effect") == "Deny"
        and statement.get("Principal") in ("*", {"AWS": "*"})
        and "s3:*" in _texts(statement.get("Action"))
        and _says_plain_http(statement.get("Condition"))
        for statement in _statements(policy)
    )


def _says_plain_http(condition: object) -> bool:
    if not isinstance(condition, Mapping):
        return False
    test = condition.get("Bool")
    return isinstance(test, Mapping) and str(test.get("aws:SecureTransport")).lower() == "false"
