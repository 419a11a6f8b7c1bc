"""EC2 as real clients meet it."""

from __future__ import annotations

from typing import Any


def test_a_deleted_subnet_takes_its_association_along_so_that_its_route_table_can_be_deleted(cloud: Any) -> None:
    ec2 = cloud.client("ec2", "us-west-2")
    vpc = ec2.create_vpc(CidrBlock="10.9.0.0/16")["Vpc"]["VpcId"]
    gone, stays = (
        ec2.create_subnet(VpcId=vpc, CidrBlock=f"10.9.{number}.0/24")["Subnet"]["SubnetId"] for number in (0, 1)
    )
    table = ec2.create_route_table(VpcId=vpc)["RouteTable"]["RouteTableId"]
    for subnet in (gone, stays):
        ec2.associate_route_table(RouteTableId=table, SubnetId=subnet)
    ec2.delete_subnet(SubnetId=gone)
    (described,) = ec2.describe_route_tables(RouteTableIds=[table])["RouteTables"]
    assert [link["SubnetId"] for link in described["Associations"]] == [stays]
    ec2.delete_subnet(SubnetId=stays)
    ec2.delete_route_table(RouteTableId=table)
    tables = ec2.describe_route_tables(Filters=[{"Name": "vpc-id", "Values": [vpc]}])["RouteTables"]
    assert table not in {each["RouteTableId"] for each in tables}
