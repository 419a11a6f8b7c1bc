"""Who may speak to whom: security groups of tasks, database, cache and endpoints, and every rule between them.

A rule is always a pair, out of the caller and into the called, between two groups and never between addresses.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import pulumi
import pulumi_aws as aws

POSTGRESQL: Final = 5432
REDIS: Final = 6379
HTTPS: Final = 443


@dataclass(frozen=True, kw_only=True)
class FirewallArgs:
    """`label` begins the groups' names. With `endpoints` tasks may also call AWS endpoints inside the network."""

    region: str
    label: str
    vpc_id: pulumi.Input[str]
    endpoints: bool


class Firewall(pulumi.ComponentResource):
    """The groups `task`, `database`, `cache` and, if asked for, `endpoints`; only tasks open connections."""

    task_group_id: pulumi.Output[str]
    database_group_id: pulumi.Output[str]
    cache_group_id: pulumi.Output[str]
    endpoint_group_id: pulumi.Output[str] | None

    def __init__(self, name: str, args: FirewallArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("agentverse:infra:Firewall", name, None, opts)
        self._name = name
        self._args = args
        self._child = pulumi.ResourceOptions(parent=self)
        task = self._group("task", "Tasks: open connections, accept none")
        database = self._group("database", "PostgreSQL: accepts tasks")
        cache = self._group("cache", "Redis: accepts tasks")
        self._allow("task", task, "database", database, POSTGRESQL)
        self._allow("task", task, "cache", cache, REDIS)
        self.endpoint_group_id = None
        if args.endpoints:
            endpoints = self._group("endpoints", "AWS endpoints of this network: accept tasks")
            self._allow("task", task, "endpoints", endpoints, HTTPS)
            self.endpoint_group_id = endpoints.id
        self.task_group_id = task.id
        self.database_group_id = database.id
        self.cache_group_id = cache.id
        self.register_outputs({"taskGroupId": self.task_group_id})

    def _group(self, role: str, description: str) -> aws.ec2.SecurityGroup:
        # The provider takes away the rule AWS puts into a new group, by which everything may leave.
        return aws.ec2.SecurityGroup(
            f"{self._name}-{role}",
            region=self._args.region,
            name=f"{self._args.label}-{role}",
            description=description,
            vpc_id=self._args.vpc_id,
            tags={"Name": f"{self._args.label}-{role}"},
            opts=self._child,
        )

    def _allow(
        self, caller: str, source: aws.ec2.SecurityGroup, called: str, target: aws.ec2.SecurityGroup, port: int
    ) -> None:
        aws.vpc.SecurityGroupEgressRule(
            f"{self._name}-{caller}-to-{called}",
            region=self._args.region,
            security_group_id=source.id,
            referenced_security_group_id=target.id,
            ip_protocol="tcp",
            from_port=port,
            to_port=port,
            description=f"{caller} to {called}",
            opts=self._child,
        )
        aws.vpc.SecurityGroupIngressRule(
            f"{self._name}-{called}-from-{caller}",
            region=self._args.region,
            security_group_id=target.id,
            referenced_security_group_id=source.id,
            ip_protocol="tcp",
            from_port=port,
            to_port=port,
            description=f"{called} from {caller}",
            opts=self._child,
        )
