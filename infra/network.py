"""A private network: a VPC, one subnet in each zone and one route table that leads nowhere outside.

There is no internet gateway, no NAT and no peering in it; what tasks reach of AWS, they reach through `endpoints.py`.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import pulumi
import pulumi_aws as aws

# Each subnet is a sixteenth of the network: two are used, the rest is room for load balancers and applications.
_SUBNET_BITS = 4

# Old zones by their id, which unlike their name is the same in every account: Fargate or the current database and cache
# classes are not sold there, and which letter they have is drawn by lot for each account.
_UNFIT_ZONES: Final = ("apne1-az3", "cac1-az3", "use1-az3", "usw1-az2")


def subnet_blocks(cidr: str, count: int) -> list[str]:
    """Return the first `count` sixteenths of the network `cidr`, in order; raises ValueError past sixteen."""
    blocks = list(ipaddress.IPv4Network(cidr).subnets(prefixlen_diff=_SUBNET_BITS))
    if count > len(blocks):
        raise ValueError(f"{cidr} holds {len(blocks)} subnets of a sixteenth each, not {count}")
    return [str(block) for block in blocks[:count]]


def two_zones(region: str) -> tuple[str, str]:
    """Return the first two zones of `region` by name that need no opting in; raises RuntimeError when it has fewer.

    Left out are local zones, where RDS and ElastiCache do not stand, and zones known to lack what stands here.
    """
    found = aws.get_availability_zones(
        region=region,
        state="available",
        exclude_zone_ids=list(_UNFIT_ZONES),
        filters=[
            aws.GetAvailabilityZonesFilterArgs(name="opt-in-status", values=["opt-in-not-required"]),
            aws.GetAvailabilityZonesFilterArgs(name="zone-type", values=["availability-zone"]),
        ],
    )
    names = sorted(found.names)
    if len(names) < 2:
        raise RuntimeError(f"{region} offers {len(names)} availability zones ({', '.join(names)}); databases need two")
    return names[0], names[1]


@dataclass(frozen=True, kw_only=True)
class NetworkArgs:
    """`cidr` is an IPv4 network of /16 to /24; one subnet is made in each of `zones`. `label` becomes the Name tag."""

    region: str
    label: str
    cidr: str
    zones: Sequence[str]


class Network(pulumi.ComponentResource):
    """A VPC with DNS on (interface endpoints answer to the services' own names), private subnets and a route table."""

    vpc_id: pulumi.Output[str]
    subnet_ids: list[pulumi.Output[str]]
    route_table_id: pulumi.Output[str]

    def __init__(self, name: str, args: NetworkArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("agentverse:infra:Network", name, None, opts)
        child = pulumi.ResourceOptions(parent=self)
        vpc = aws.ec2.Vpc(
            f"{name}-vpc",
            region=args.region,
            cidr_block=args.cidr,
            enable_dns_support=True,
            enable_dns_hostnames=True,
            tags={"Name": args.label},
            opts=child,
        )
        routes = aws.ec2.RouteTable(
            f"{name}-routes", region=args.region, vpc_id=vpc.id, tags={"Name": f"{args.label}-private"}, opts=child
        )
        self.subnet_ids = []
        blocks = subnet_blocks(args.cidr, len(args.zones))
        for number, (zone, block) in enumerate(zip(args.zones, blocks, strict=True), start=1):
            subnet = aws.ec2.Subnet(
                f"{name}-private-{number}",
                region=args.region,
                vpc_id=vpc.id,
                availability_zone=zone,
                cidr_block=block,
                map_public_ip_on_launch=False,
                tags={"Name": f"{args.label}-private-{number}"},
                opts=child,
            )
            aws.ec2.RouteTableAssociation(
                f"{name}-private-{number}-routes",
                region=args.region,
                subnet_id=subnet.id,
                route_table_id=routes.id,
                opts=child,
            )
            self.subnet_ids.append(subnet.id)
        self.vpc_id = vpc.id
        self.route_table_id = routes.id
        self.register_outputs({"vpcId": self.vpc_id, "subnetIds": self.subnet_ids})
