"""EC2 networking: networks, subnets, route tables and their associations. (Groups and endpoints: other files.)"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from localcloud.provider.calls import Cloud, input_shape, output_shape
from localcloud.provider.equality import same
from localcloud.provider.kind import Change, Item, Kind, Setting
from localcloud.provider.matching import from_aws, to_aws
from localcloud.provider.tags import Tagging, Tags, as_dict, as_list
from localcloud.provider.values import Values

SERVICE = "ec2"
IPAM = "the embedded cloud has no IP address manager"


def tagged(resource_type: str) -> Tagging:
    """Describe EC2's way with tags: TagSpecifications when a thing is made, CreateTags and DeleteTags by id later."""

    def remove(cloud: Cloud, resource_id: str, _state: Values, names: list[str]) -> None:
        cloud.call(SERVICE, "DeleteTags", Resources=[resource_id], Tags=[{"Key": name} for name in names])

    def add(cloud: Cloud, resource_id: str, _state: Values, tags: Tags) -> None:
        cloud.call(SERVICE, "CreateTags", Resources=[resource_id], Tags=as_list(tags))

    return Tagging(
        create=lambda tags: {"TagSpecifications": [{"ResourceType": resource_type, "Tags": as_list(tags)}]},
        read=lambda _cloud, _id, item, _state: as_dict(item.get("Tags")),
        add=add,
        remove=remove,
    )


def arn(cloud: Cloud, item: Item, resource_type: str, resource_id: str) -> str:
    """Return the ARN of an EC2 thing, which EC2 itself does not say."""
    owner = item.get("OwnerId") or cloud.call("sts", "GetCallerIdentity")["Account"]
    return f"arn:aws:ec2:{cloud.region}:{owner}:{resource_type}/{resource_id}"


def _attribute(operation: str, key: str, name: str, member: str, default: Any) -> Setting:
    """Return the setting of one attribute: EC2's modify calls take one at a time."""

    def apply(change: Change) -> None:
        value = change.new.get(name, default)
        if value != change.old.get(name, default):
            shape = input_shape(SERVICE, operation, member)
            change.cloud.call(SERVICE, operation, **{key: change.id, member: to_aws(value, shape, name)})

    return Setting(properties=(name,), apply=apply)


_VPC_ATTRIBUTES = {
    "enableDnsSupport": ("EnableDnsSupport", "enableDnsSupport", True),
    "enableDnsHostnames": ("EnableDnsHostnames", "enableDnsHostnames", False),
    "enableNetworkAddressUsageMetrics": ("EnableNetworkAddressUsageMetrics", "enableNetworkAddressUsageMetrics", False),
}


def _first(cloud: Cloud, operation: str, result: str, **filters: str) -> Item:
    given = [{"Name": name.replace("_", "-"), "Values": [value]} for name, value in filters.items()]
    found = cloud.call(SERVICE, operation, Filters=given)[result]
    return found[0] if found else {}


def _vpc_outputs(cloud: Cloud, vpc: str, item: Item, _state: Values) -> Values:
    found: Values = {
        "arn": arn(cloud, item, "vpc", vpc),
        "ownerId": item.get("OwnerId") or arn(cloud, item, "vpc", vpc).split(":")[4],
        "defaultSecurityGroupId": _first(
            cloud, "DescribeSecurityGroups", "SecurityGroups", vpc_id=vpc, group_name="default"
        ).get("GroupId"),
        "defaultNetworkAclId": _first(cloud, "DescribeNetworkAcls", "NetworkAcls", vpc_id=vpc, default="true").get(
            "NetworkAclId"
        ),
    }
    tables = cloud.call(SERVICE, "DescribeRouteTables", Filters=[{"Name": "vpc-id", "Values": [vpc]}])["RouteTables"]
    main = next((t["RouteTableId"] for t in tables if any(a.get("Main") for a in t.get("Associations", []))), None)
    found["mainRouteTableId"] = found["defaultRouteTableId"] = main
    for name, (member, attribute, default) in _VPC_ATTRIBUTES.items():
        answer = cloud.look(SERVICE, "DescribeVpcAttribute", VpcId=vpc, Attribute=attribute) or {}
        found[name] = (answer.get(member) or {}).get("Value", default)
    return found


def _subnet_outputs(cloud: Cloud, subnet: str, item: Item, _state: Values) -> Values:
    hostnames = item.get("PrivateDnsNameOptionsOnLaunch") or {}
    found: Values = {
        "arn": item.get("SubnetArn") or arn(cloud, item, "subnet", subnet),
        "ownerId": item.get("OwnerId"),
        "enableResourceNameDnsARecordOnLaunch": hostnames.get("EnableResourceNameDnsARecord"),
        "enableResourceNameDnsAaaaRecordOnLaunch": hostnames.get("EnableResourceNameDnsAAAARecord"),
        "privateDnsHostnameTypeOnLaunch": hostnames.get("HostnameType"),
    }
    return {name: value for name, value in found.items() if value is not None}


def _route_shape() -> Any:
    return output_shape(SERVICE, "DescribeRouteTables", "RouteTables[].Routes[]")


def _own_routes(item: Item) -> list[Item]:
    """Return the routes that somebody made: not the network's own, nor those that a gateway endpoint puts there."""
    return [
        route
        for route in item.get("Routes", [])
        if route.get("Origin") != "CreateRouteTable"
        and route.get("GatewayId") != "local"
        and not str(route.get("GatewayId", "")).startswith("vpce-")
    ]


def _destination(route: Item) -> Item:
    names = ("DestinationCidrBlock", "DestinationIpv6CidrBlock", "DestinationPrefixListId")
    return {name: route[name] for name in names if route.get(name)}


_ROUTE_NAMES = {
    "cidrBlock": "DestinationCidrBlock",
    "ipv6CidrBlock": "DestinationIpv6CidrBlock",
    "destinationPrefixListId": "DestinationPrefixListId",
}


def _as_call(route: Values) -> Item:
    plain = {_ROUTE_NAMES.get(name, name): value for name, value in route.items() if value not in ("", None)}
    call: Item = to_aws(plain, input_shape(SERVICE, "CreateRoute"), "routes")
    return call


def _set_routes(change: Change) -> None:
    table = change.cloud.call(SERVICE, "DescribeRouteTables", RouteTableIds=[change.id])["RouteTables"][0]
    wanted = [_as_call(route) for route in change.new.get("routes") or ()]
    kept = []
    for route in _own_routes(table):
        twin = next((w for w in wanted if all(route.get(name) == value for name, value in w.items())), None)
        if twin is None:
            change.cloud.call(SERVICE, "DeleteRoute", RouteTableId=change.id, **_destination(route))
        else:
            kept.append(twin)
    for route in wanted:
        if route not in kept:
            change.cloud.call(SERVICE, "CreateRoute", RouteTableId=change.id, **route)


def _table_outputs(cloud: Cloud, table: str, item: Item, state: Values) -> Values:
    found: Values = {"arn": arn(cloud, item, "route-table", table), "ownerId": item.get("OwnerId")}
    if "routes" in state:
        declared = [{_ROUTE_NAMES.get(name, name): value for name, value in route.items()} for route in state["routes"]]
        actual = [
            from_aws(route, _route_shape(), next((d for d in declared if _same_way(d, route)), None))
            for route in _own_routes(item)
        ]
        found["routes"] = state["routes"] if same(actual, declared) else actual
    return found


def _same_way(declared: Values, route: Item) -> bool:
    return any(declared.get(name) and declared.get(name) == route.get(name) for name in _ROUTE_NAMES.values())


def _find_association(cloud: Cloud, association: str, _state: Values) -> Item | None:
    filters = [{"Name": "association.route-table-association-id", "Values": [association]}]
    for table in cloud.call(SERVICE, "DescribeRouteTables", Filters=filters)["RouteTables"]:
        for item in table.get("Associations", []):
            if item.get("RouteTableAssociationId") == association:
                return dict(item)
    return None


def _deleting(operation: str, key: str) -> Callable[[Cloud, str, Values], None]:
    def delete(cloud: Cloud, resource_id: str, _state: Values) -> None:
        # Network interfaces of databases and endpoints that are just gone hold on for a moment.
        cloud.retry({"DependencyViolation"}, SERVICE, operation, **{key: resource_id})

    return delete


KINDS = (
    Kind(
        pulumi_type="aws:ec2/vpc:Vpc",
        service=SERVICE,
        create="CreateVpc",
        read="DescribeVpcs",
        at="Vpcs[]",
        key="VpcIds",
        id=lambda _inputs, made: str(made["Vpc"]["VpcId"]),
        ready=lambda cloud, vpc, _values: cloud.wait(SERVICE, "vpc_available", VpcIds=[vpc]),
        deleter=_deleting("DeleteVpc", "VpcId"),
        renames={"assignGeneratedIpv6CidrBlock": "AmazonProvidedIpv6CidrBlock"},
        reads="arn cidrBlock instanceTenancy dhcpOptionsId ownerId defaultSecurityGroupId defaultNetworkAclId "
        "mainRouteTableId defaultRouteTableId enableDnsSupport enableDnsHostnames enableNetworkAddressUsageMetrics",
        imports="cidrBlock enableDnsSupport enableDnsHostnames instanceTenancy",
        settings=tuple(
            _attribute("ModifyVpcAttribute", "VpcId", name, member, default)
            for name, (member, _, default) in _VPC_ATTRIBUTES.items()
        ),
        unsupported=dict.fromkeys(("ipv4IpamPoolId", "ipv4NetmaskLength", "ipv6IpamPoolId", "ipv6NetmaskLength"), IPAM),
        outputs=_vpc_outputs,
        tagging=tagged("vpc"),
    ),
    Kind(
        pulumi_type="aws:ec2/subnet:Subnet",
        service=SERVICE,
        create="CreateSubnet",
        read="DescribeSubnets",
        at="Subnets[]",
        key="SubnetIds",
        id=lambda _inputs, made: str(made["Subnet"]["SubnetId"]),
        ready=lambda cloud, subnet, _values: cloud.wait(SERVICE, "subnet_available", SubnetIds=[subnet]),
        deleter=_deleting("DeleteSubnet", "SubnetId"),
        reads="arn availabilityZone availabilityZoneId ownerId cidrBlock mapPublicIpOnLaunch "
        "assignIpv6AddressOnCreation",
        imports="vpcId cidrBlock availabilityZone mapPublicIpOnLaunch",
        settings=tuple(
            _attribute("ModifySubnetAttribute", "SubnetId", name, member, default)
            for name, member, default in (
                ("mapPublicIpOnLaunch", "MapPublicIpOnLaunch", False),
                ("assignIpv6AddressOnCreation", "AssignIpv6AddressOnCreation", False),
                ("enableDns64", "EnableDns64", False),
                ("enableResourceNameDnsARecordOnLaunch", "EnableResourceNameDnsARecordOnLaunch", False),
                ("enableResourceNameDnsAaaaRecordOnLaunch", "EnableResourceNameDnsAAAARecordOnLaunch", False),
                ("privateDnsHostnameTypeOnLaunch", "PrivateDnsHostnameTypeOnLaunch", None),
            )
        ),
        unsupported={
            **dict.fromkeys(("ipv4IpamPoolId", "ipv4NetmaskLength", "ipv6IpamPoolId", "ipv6NetmaskLength"), IPAM),
            **dict.fromkeys(
                ("customerOwnedIpv4Pool", "mapCustomerOwnedIpOnLaunch", "outpostArn", "enableLniAtDeviceIndex"),
                "the embedded cloud has no Outposts",
            ),
        },
        outputs=_subnet_outputs,
        tagging=tagged("subnet"),
    ),
    Kind(
        pulumi_type="aws:ec2/routeTable:RouteTable",
        service=SERVICE,
        create="CreateRouteTable",
        read="DescribeRouteTables",
        at="RouteTables[]",
        key="RouteTableIds",
        id=lambda _inputs, made: str(made["RouteTable"]["RouteTableId"]),
        deleter=_deleting("DeleteRouteTable", "RouteTableId"),
        reads="arn ownerId",
        imports="vpcId",
        settings=(Setting(properties=("routes",), apply=_set_routes),),
        unsupported={"propagatingVgws": "the embedded cloud has no VPN gateways that propagate routes"},
        outputs=_table_outputs,
        tagging=tagged("route-table"),
    ),
    Kind(
        pulumi_type="aws:ec2/routeTableAssociation:RouteTableAssociation",
        service=SERVICE,
        create="AssociateRouteTable",
        read="DescribeRouteTables",
        at="RouteTables[].Associations[]",
        key="AssociationId",
        id=lambda _inputs, made: str(made["AssociationId"]),
        find=_find_association,
        delete="DisassociateRouteTable",
        imports="subnetId gatewayId routeTableId",
        deletes_first=True,  # a subnet has one route table
    ),
)
