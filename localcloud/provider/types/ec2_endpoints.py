"""EC2 VPC endpoints: doors to AWS services for networks without a way out."""

from __future__ import annotations

import time

from localcloud.provider.calls import LOOK_EVERY_SECONDS, Cloud
from localcloud.provider.errors import CallError
from localcloud.provider.kind import Change, Item, Kind, Setting
from localcloud.provider.types.ec2 import SERVICE, arn, tagged
from localcloud.provider.values import Values

# What ModifyVpcEndpoint adds and removes one by one: property -> (adding member, removing member).
_SETS = {
    "routeTableIds": ("AddRouteTableIds", "RemoveRouteTableIds"),
    "subnetIds": ("AddSubnetIds", "RemoveSubnetIds"),
    "securityGroupIds": ("AddSecurityGroupIds", "RemoveSecurityGroupIds"),
}


def _update(change: Change, changed: set[str]) -> None:
    given: Item = {}
    for name, (add, remove) in _SETS.items():
        if name in changed:
            wanted, actual = set(change.new.get(name) or ()), set(change.old.get(name) or ())
            given[add], given[remove] = sorted(wanted - actual), sorted(actual - wanted)
    if "policy" in changed:
        given["PolicyDocument"] = change.new.get("policy")
        given["ResetPolicy"] = None if change.new.get("policy") else True
    if "privateDnsEnabled" in changed:
        given["PrivateDnsEnabled"] = bool(change.new.get("privateDnsEnabled"))
    if "ipAddressType" in changed:
        given["IpAddressType"] = change.new.get("ipAddressType")
    given = {name: value for name, value in given.items() if value not in ([], None)}
    if given:
        change.cloud.call(SERVICE, "ModifyVpcEndpoint", VpcEndpointId=change.id, **given)


def _prefix_list(cloud: Cloud, service: str) -> tuple[str | None, list[str]]:
    filters = [{"Name": "prefix-list-name", "Values": [service]}]
    found = (cloud.look(SERVICE, "DescribeManagedPrefixLists", Filters=filters) or {}).get("PrefixLists") or []
    if not found:
        return None, []
    entries = cloud.look(SERVICE, "GetManagedPrefixListEntries", PrefixListId=found[0]["PrefixListId"]) or {}
    return found[0]["PrefixListId"], [entry["Cidr"] for entry in entries.get("Entries", [])]


def _outputs(cloud: Cloud, endpoint: str, item: Item, state: Values) -> Values:
    found: Values = {
        "arn": arn(cloud, item, "vpc-endpoint", endpoint),
        "state": str(item.get("State", "")).lower(),
        "networkInterfaceIds": sorted(item.get("NetworkInterfaceIds", [])),
        "dnsEntries": [
            {"dnsName": entry.get("DnsName", ""), "hostedZoneId": entry.get("HostedZoneId", "")}
            for entry in item.get("DnsEntries") or []
        ],
        "requesterManaged": bool(item.get("RequesterManaged", False)),
    }
    for name, member in (("routeTableIds", "RouteTableIds"), ("subnetIds", "SubnetIds")):
        found[name] = sorted(item.get(member) or [])
    groups = [group["GroupId"] for group in item.get("Groups") or [] if group.get("GroupId")]
    # moto names the groups nowhere: then what the program declared stands
    found["securityGroupIds"] = sorted(groups) if groups else state.get("securityGroupIds", [])
    if item.get("VpcEndpointType") == "Gateway":
        found["prefixListId"], found["cidrBlocks"] = _prefix_list(cloud, str(item["ServiceName"]))
    return found


def _ready(cloud: Cloud, endpoint: str, _values: Values) -> None:

    while True:
        found = cloud.call(SERVICE, "DescribeVpcEndpoints", VpcEndpointIds=[endpoint])["VpcEndpoints"]
        state = str(found[0].get("State", "")).lower() if found else "missing"
        if state not in {"pending", "missing"}:
            break
        time.sleep(LOOK_EVERY_SECONDS)
    if state in {"failed", "rejected", "expired"}:
        raise CallError("CreateVpcEndpoint", state, f"the endpoint {endpoint} cannot be used")


def _delete(cloud: Cloud, endpoint: str, _state: Values) -> None:
    answer = cloud.call(SERVICE, "DeleteVpcEndpoints", VpcEndpointIds=[endpoint])
    for problem in answer.get("Unsuccessful", []):
        error = problem.get("Error", {})
        raise CallError("DeleteVpcEndpoints", str(error.get("Code", "Unknown")), str(error.get("Message", "")))


_LATTICE = "the embedded cloud has no VPC Lattice"

KINDS = (
    Kind(
        pulumi_type="aws:ec2/vpcEndpoint:VpcEndpoint",
        service=SERVICE,
        create="CreateVpcEndpoint",
        update="ModifyVpcEndpoint",
        read="DescribeVpcEndpoints",
        at="VpcEndpoints[]",
        key="VpcEndpointIds",
        id=lambda _inputs, made: str(made["VpcEndpoint"]["VpcEndpointId"]),
        ready=_ready,
        updater=_update,
        deleter=_delete,
        alive=lambda item: str(item.get("State", "")).lower() not in {"deleting", "deleted"},
        reads="arn state networkInterfaceIds dnsEntries requesterManaged ownerId prefixListId cidrBlocks policy "
        "privateDnsEnabled vpcEndpointType ipAddressType routeTableIds subnetIds securityGroupIds",
        imports="vpcId serviceName vpcEndpointType privateDnsEnabled routeTableIds subnetIds securityGroupIds policy",
        initial={"vpcEndpointType": "Gateway"},
        renames={"policy": "PolicyDocument"},
        state_only=frozenset({"autoAccept"}),
        unsupported={
            "resourceConfigurationArn": _LATTICE,
            "serviceNetworkArn": _LATTICE,
            "serviceRegion": "the embedded cloud has no endpoints to services of other regions",
            "dnsOptions": "the embedded cloud does not keep them",
            "subnetConfigurations": "the embedded cloud chooses the addresses itself",
        },
        settings=tuple(Setting(properties=(name,), apply=lambda _change: None) for name in _SETS),
        outputs=_outputs,
        tagging=tagged("vpc-endpoint"),
    ),
)
