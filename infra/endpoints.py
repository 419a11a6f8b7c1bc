"""What an isolated network reaches of AWS: interface endpoints for the services its tasks call, and a gateway to S3.

Every endpoint has a policy, because the dump restored here is somebody's input: nothing in this network can carry data
to another account's bucket, secret or log.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import pulumi
import pulumi_aws as aws

from infra import firewall

# What a Fargate task needs from the pull of its image to its last log line, and the recovery task from there on.
INTERFACE_SERVICES: Final = ("ecr.api", "ecr.dkr", "kms", "logs", "secretsmanager", "sts")


@dataclass(frozen=True, kw_only=True)
class EndpointsArgs:
    """Where the endpoints stand, who may use them and which buckets can be read through the S3 gateway."""

    region: str
    label: str
    account: str
    vpc_id: pulumi.Input[str]
    subnet_ids: Sequence[pulumi.Input[str]]
    route_table_id: pulumi.Input[str]
    endpoint_group_id: pulumi.Input[str]
    task_group_id: pulumi.Input[str]
    readable_buckets: Sequence[str]


class Endpoints(pulumi.ComponentResource):
    """One interface endpoint per service in every subnet, answering to the service's own name, and the S3 gateway."""

    def __init__(self, name: str, args: EndpointsArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("agentverse:infra:Endpoints", name, None, opts)
        child = pulumi.ResourceOptions(parent=self)
        for service in INTERFACE_SERVICES:
            suffix = service.replace(".", "-")
            aws.ec2.VpcEndpoint(
                f"{name}-{suffix}",
                region=args.region,
                vpc_id=args.vpc_id,
                vpc_endpoint_type="Interface",
                service_name=f"com.amazonaws.{args.region}.{service}",
                private_dns_enabled=True,
                subnet_ids=list(args.subnet_ids),
                security_group_ids=[args.endpoint_group_id],
                policy=json.dumps(own_account_policy(args.account)),
                tags={"Name": f"{args.label}-{suffix}"},
                opts=child,
            )
        s3 = aws.ec2.VpcEndpoint(
            f"{name}-s3",
            region=args.region,
            vpc_id=args.vpc_id,
            vpc_endpoint_type="Gateway",
            service_name=f"com.amazonaws.{args.region}.s3",
            route_table_ids=[args.route_table_id],
            policy=json.dumps(gateway_policy(args.region, args.readable_buckets)),
            tags={"Name": f"{args.label}-s3"},
            opts=child,
        )
        aws.vpc.SecurityGroupEgressRule(
            f"{name}-task-to-s3",
            region=args.region,
            security_group_id=args.task_group_id,
            prefix_list_id=s3.prefix_list_id,
            ip_protocol="tcp",
            from_port=firewall.HTTPS,
            to_port=firewall.HTTPS,
            description="task to S3",
            opts=child,
        )
        self.register_outputs({})


def own_account_policy(account: str) -> dict[str, object]:
    """Return the policy of an interface endpoint: this account's principals and nobody's else."""
    return {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Sid": "PrincipalsOfThisAccount",
                "Effect": "Allow",
                "Principal": "*",
                "Action": "*",
                "Resource": "*",
                "Condition": {"StringEquals": {"aws:PrincipalAccount": account}},
            }
        ],
    }


def gateway_policy(region: str, readable_buckets: Sequence[str]) -> dict[str, object]:
    """Return the policy of the S3 gateway: read the given buckets, and the one where ECR keeps image layers."""
    arns = [f"arn:aws:s3:::{bucket}" for bucket in readable_buckets]
    return {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Sid": "ReadTheRecoveryBuckets",
                "Effect": "Allow",
                "Principal": "*",
                "Action": [
                    "s3:GetBucketLocation",
                    "s3:GetBucketVersioning",
                    "s3:GetObject",
                    "s3:GetObjectAttributes",
                    "s3:GetObjectTagging",
                    "s3:GetObjectVersion",
                    "s3:ListBucket",
                    "s3:ListBucketVersions",
                ],
                "Resource": [*arns, *(f"{arn}/*" for arn in arns)],
            },
            {
                # A bucket of AWS, by pre-signed addresses of AWS: no principal of this account to ask for.
                "Sid": "PullImageLayers",
                "Effect": "Allow",
                "Principal": "*",
                "Action": "s3:GetObject",
                "Resource": f"arn:aws:s3:::prod-{region}-starport-layer-bucket/*",
            },
        ],
    }
