"""EC2 security groups, with their rules inside or, as pulumi-aws 7 recommends, one resource for each rule."""

from __future__ import annotations

from typing import Any

from localcloud.provider.calls import Cloud, input_shape
from localcloud.provider.equality import same
from localcloud.provider.errors import CallError
from localcloud.provider.kind import Change, Item, Kind, Setting
from localcloud.provider.matching import to_aws
from localcloud.provider.naming import Naming
from localcloud.provider.types.ec2 import SERVICE, arn, tagged
from localcloud.provider.values import Values

_SIDES = {"ingress": ("Ingress", "IpPermissions"), "egress": ("Egress", "IpPermissionsEgress")}


def _permission(rule: Values, group: str) -> Item:
    """Return an inline rule as EC2 takes it."""
    text = {"Description": rule["description"]} if rule.get("description") else {}
    peers = [*rule.get("securityGroups", ()), *([group] if rule.get("self") else [])]
    protocol = str(rule["protocol"]).lower().replace("all", "-1")
    ports = {} if protocol == "-1" else {"FromPort": int(rule["fromPort"]), "ToPort": int(rule["toPort"])}
    found = {
        "IpProtocol": protocol,
        **ports,
        "IpRanges": [{"CidrIp": cidr, **text} for cidr in rule.get("cidrBlocks", ())],
        "Ipv6Ranges": [{"CidrIpv6": cidr, **text} for cidr in rule.get("ipv6CidrBlocks", ())],
        "PrefixListIds": [{"PrefixListId": prefix, **text} for prefix in rule.get("prefixListIds", ())],
        "UserIdGroupPairs": [{"GroupId": peer, **text} for peer in peers],
    }
    return {name: value for name, value in found.items() if value != []}


def _flat(permissions: list[Item]) -> set[tuple[str, ...]]:
    """Return permissions one peer at a time, as EC2 itself keeps them: EC2 merges and splits what it was given."""
    found: set[tuple[str, ...]] = set()
    for item in permissions:
        every = item.get("IpProtocol") == "-1"
        ports = ("", "") if every else (str(item.get("FromPort", "")), str(item.get("ToPort", "")))
        for member, key in (
            ("IpRanges", "CidrIp"),
            ("Ipv6Ranges", "CidrIpv6"),
            ("PrefixListIds", "PrefixListId"),
            ("UserIdGroupPairs", "GroupId"),
        ):
            for peer in item.get(member) or ():
                found.add(
                    (str(item.get("IpProtocol")), *ports, key, str(peer.get(key)), str(peer.get("Description") or ""))
                )
    return found


def _unflat(flat: tuple[str, ...]) -> Item:
    protocol, first, last, key, peer, text = flat
    member = {
        "CidrIp": "IpRanges",
        "CidrIpv6": "Ipv6Ranges",
        "PrefixListId": "PrefixListIds",
        "GroupId": "UserIdGroupPairs",
    }[key]
    ports = {"FromPort": int(first), "ToPort": int(last)} if first and last else {}
    return {"IpProtocol": protocol, **ports, member: [{key: peer, **({"Description": text} if text else {})}]}


def _set_rules(side: str) -> Setting:
    word, member = _SIDES[side]

    def apply(change: Change) -> None:
        group = change.cloud.call(SERVICE, "DescribeSecurityGroups", GroupIds=[change.id])["SecurityGroups"][0]
        actual = _flat(group.get(member, []))
        wanted = _flat([_permission(rule, change.id) for rule in change.new.get(side) or ()])
        for gone in sorted(actual - wanted):
            change.cloud.call(SERVICE, f"RevokeSecurityGroup{word}", GroupId=change.id, IpPermissions=[_unflat(gone)])
        for fresh in sorted(wanted - actual):
            change.cloud.call(
                SERVICE, f"AuthorizeSecurityGroup{word}", GroupId=change.id, IpPermissions=[_unflat(fresh)]
            )

    return Setting(properties=(side,), apply=apply)


def _as_rule(flat: tuple[str, ...]) -> Values:
    protocol, first, last, key, peer, text = flat
    name = {
        "CidrIp": "cidrBlocks",
        "CidrIpv6": "ipv6CidrBlocks",
        "PrefixListId": "prefixListIds",
        "GroupId": "securityGroups",
    }[key]
    ports = {"fromPort": int(first or 0), "toPort": int(last or 0)}
    return {"protocol": protocol, **ports, name: [peer], **({"description": text} if text else {})}


def _create_group(cloud: Cloud, _inputs: Values, given: Item) -> Item:
    made = cloud.call(SERVICE, "CreateSecurityGroup", **given)
    # AWS lets a new group send anything anywhere; the official provider takes that rule away, so that only what the
    # program declares is open.
    if given.get("VpcId"):
        group = cloud.call(SERVICE, "DescribeSecurityGroups", GroupIds=[made["GroupId"]])["SecurityGroups"][0]
        for rule in sorted(_flat(group.get("IpPermissionsEgress", []))):
            cloud.call(SERVICE, "RevokeSecurityGroupEgress", GroupId=made["GroupId"], IpPermissions=[_unflat(rule)])
    return made


def _group_outputs(cloud: Cloud, group: str, item: Item, state: Values) -> Values:
    found: Values = {"arn": item.get("SecurityGroupArn") or arn(cloud, item, "security-group", group)}
    for side, (_, member) in _SIDES.items():
        if side in state:
            actual = _flat(item.get(member, []))
            wanted = _flat([_permission(rule, group) for rule in state[side]])
            found[side] = state[side] if actual == wanted else [_as_rule(rule) for rule in sorted(actual)]
    return found


def _delete_group(cloud: Cloud, group: str, state: Values) -> None:
    if state.get("revokeRulesOnDelete"):
        found = cloud.call(SERVICE, "DescribeSecurityGroups", GroupIds=[group])["SecurityGroups"][0]
        for word, member in _SIDES.values():
            for rule in sorted(_flat(found.get(member, []))):
                cloud.call(SERVICE, f"RevokeSecurityGroup{word}", GroupId=group, IpPermissions=[_unflat(rule)])
    cloud.retry({"DependencyViolation"}, SERVICE, "DeleteSecurityGroup", GroupId=group)


GROUP = Kind(
    pulumi_type="aws:ec2/securityGroup:SecurityGroup",
    service=SERVICE,
    create="CreateSecurityGroup",
    creator=_create_group,
    read="DescribeSecurityGroups",
    at="SecurityGroups[]",
    key="GroupIds",
    id=lambda _inputs, made: str(made["GroupId"]),
    deleter=_delete_group,
    nouns=("group",),
    renames={"description": "Description"},
    reads="arn ownerId vpcId",
    imports="name description vpcId",
    naming=Naming(limit=255),
    initial={"description": "Managed by Pulumi"},
    state_only=frozenset({"revokeRulesOnDelete"}),
    defaults={"revokeRulesOnDelete": False},
    settings=(_set_rules("ingress"), _set_rules("egress")),
    outputs=_group_outputs,
    tagging=tagged("security-group"),
)

# Properties of a rule, as ModifySecurityGroupRules names them.
_RULE = {
    "ipProtocol": "IpProtocol",
    "fromPort": "FromPort",
    "toPort": "ToPort",
    "cidrIpv4": "CidrIpv4",
    "cidrIpv6": "CidrIpv6",
    "prefixListId": "PrefixListId",
    "referencedSecurityGroupId": "ReferencedGroupId",
    "description": "Description",
}


def _rule_request(values: Values) -> Item:
    shape = input_shape(SERVICE, "ModifySecurityGroupRules", "SecurityGroupRules[].SecurityGroupRule")
    return {
        member: to_aws(values[name], shape.members[member], name) for name, member in _RULE.items() if name in values
    }


def _create_rule(word: str) -> Any:
    def create(cloud: Cloud, inputs: Values, given: Item) -> Item:
        permission = _permission(
            {
                "protocol": inputs["ipProtocol"],
                "fromPort": inputs.get("fromPort", -1),
                "toPort": inputs.get("toPort", -1),
                "description": inputs.get("description"),
                "cidrBlocks": [inputs["cidrIpv4"]] if inputs.get("cidrIpv4") else [],
                "ipv6CidrBlocks": [inputs["cidrIpv6"]] if inputs.get("cidrIpv6") else [],
                "prefixListIds": [inputs["prefixListId"]] if inputs.get("prefixListId") else [],
                "securityGroups": [str(inputs["referencedSecurityGroupId"]).rpartition("/")[2]]
                if inputs.get("referencedSecurityGroupId")
                else [],
            },
            inputs["securityGroupId"],
        )
        tags = {name: value for name, value in given.items() if name == "TagSpecifications"}
        operation = f"AuthorizeSecurityGroup{word}"
        made = cloud.call(SERVICE, operation, GroupId=inputs["securityGroupId"], IpPermissions=[permission], **tags)
        rules = made.get("SecurityGroupRules") or []
        if not rules:
            raise CallError(operation, "InvalidResponse", "the answer names no rule")
        return dict(rules[0])

    return create


def _update_rule(change: Change) -> None:
    if change.old and any(change.changed(name) for name in _RULE):
        request = {"SecurityGroupRuleId": change.id, "SecurityGroupRule": _rule_request(change.new)}
        change.cloud.call(
            SERVICE, "ModifySecurityGroupRules", GroupId=change.new["securityGroupId"], SecurityGroupRules=[request]
        )


def _rule_outputs(cloud: Cloud, rule: str, item: Item, _state: Values) -> Values:
    owner = {"OwnerId": item.get("GroupOwnerId")}
    found: Values = {
        "arn": item.get("SecurityGroupRuleArn") or arn(cloud, owner, "security-group-rule", rule),
        "securityGroupRuleId": rule,
        "securityGroupId": item["GroupId"],
    }
    referenced = (item.get("ReferencedGroupInfo") or {}).get("GroupId")
    if referenced:
        found["referencedSecurityGroupId"] = referenced
    return found


def _all_ports(new: Any, old: Any) -> bool:
    # With protocol -1 a rule has no ports: EC2 answers -1 for both.
    return same(new, old) or {str(new), str(old)} <= {"-1", "None", "0"}


def _delete_rule(word: str) -> Any:
    def delete(cloud: Cloud, rule: str, state: Values) -> None:
        group = state["securityGroupId"]
        cloud.call(SERVICE, f"RevokeSecurityGroup{word}", GroupId=group, SecurityGroupRuleIds=[rule])

    return delete


def _rule_kind(word: str) -> Kind:
    return Kind(
        pulumi_type=f"aws:vpc/securityGroup{word}Rule:SecurityGroup{word}Rule",
        service=SERVICE,
        create=f"AuthorizeSecurityGroup{word}",
        creator=_create_rule(word),
        read="DescribeSecurityGroupRules",
        at="SecurityGroupRules[]",
        key="SecurityGroupRuleIds",
        id=lambda _inputs, made: str(made["SecurityGroupRuleId"]),
        deleter=_delete_rule(word),
        renames={"securityGroupId": "GroupId"},
        reads="arn securityGroupRuleId",
        imports="securityGroupId ipProtocol fromPort toPort cidrIpv4 cidrIpv6 prefixListId description "
        "referencedSecurityGroupId",
        replaces=frozenset({"securityGroupId"}),
        settings=(Setting(properties=tuple(_RULE), apply=_update_rule),),
        comparators={"fromPort": _all_ports, "toPort": _all_ports},
        outputs=_rule_outputs,
        tagging=tagged("security-group-rule"),
    )


KINDS = (GROUP, _rule_kind("Ingress"), _rule_kind("Egress"))
