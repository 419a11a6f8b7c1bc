"""Finds what a drill has left behind and removes it: by tag, by VPC and by name, each hit confirmed by a describe call.

The tagging API is behind by minutes and knows nothing of network interfaces that tasks leave; names and VPCs find
those. What the tagging API says is there is believed only when the service itself says so.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import stamina
from botocore.exceptions import ClientError

from recovery.clients import AwsError, aws_problem
from recovery.errors import RefusedError
from recovery.tags import TAG_DRILL, TAG_MODE

if TYPE_CHECKING:
    from recovery.clients import Clients

_DRILL_ID = re.compile(r"^(\d{8}-\d{6}-[0-9a-f]{4})$")
# What still exists but is on its way out needs no second delete, only time.
_LEAVING = frozenset({"deleting", "delete-in-progress", "DELETE_IN_PROGRESS", "INACTIVE", "deleted", "Deleting"})


@dataclass(frozen=True, order=True, kw_only=True)
class Leftover:
    """One thing that still exists. `rank` is its place in the order of deletion, `found_by` tag, vpc or name."""

    rank: int
    kind: str
    id: str
    found_by: str
    state: str = ""

    def describe(self) -> str:
        """Return one line for a person."""
        return f"{self.kind} {self.id} (by {self.found_by}{', ' + self.state if self.state else ''})"


class Sweeper:
    """Finds and removes the leftovers of one drill in one region."""

    def __init__(self, clients: Clients, drill_id: str, environment: str) -> None:
        """Prepare; raises RefusedError when `drill_id` could match more than one drill's names."""
        if not _DRILL_ID.match(drill_id) and drill_id != "manual":
            raise RefusedError(
                f"{drill_id!r} is not a drill's id, so nothing can be swept by it.",
                hint="Drill ids look like 20260109-020000-1a2b; `recovery drills list` shows them.",
            )
        self._clients = clients
        self._drill_id = drill_id
        self._prefix = f"agentverse-{environment}-dr-{drill_id}"

    # --- finding

    def find(self) -> list[Leftover]:
        """Return what still exists of this drill, in the order in which it can be deleted.

        Raises EnvironmentLacksError or RecoveryError when a service does not answer, since silence is not emptiness;
        RefusedError when the environment of this id is a failover's.
        """
        found: dict[tuple[str, str], Leftover] = {}
        self._refuse_failover()
        finders: tuple[Callable[[], Iterable[Leftover]], ...] = (
            self._tasks_and_clusters,
            self._task_definitions,
            self._databases,
            self._caches,
            self._network,
            self._log_groups,
            self._secrets,
            self._tagged_elsewhere,
        )
        for finder in finders:
            try:
                for hit in finder():
                    found.setdefault((hit.kind, hit.id), hit)
            except AwsError as exc:
                raise aws_problem(f"The sweep of drill {self._drill_id} could not look everywhere.", exc) from exc
        return sorted(found.values())

    def _refuse_failover(self) -> None:
        """Names do not tell a drill from a failover, so one thing of another mode stops the whole sweep."""
        try:
            pages = (
                self._clients("resourcegroupstaggingapi")
                .get_paginator("get_resources")
                .paginate(TagFilters=[{"Key": TAG_DRILL, "Values": [self._drill_id]}])
            )
            every = [mapping["Tags"] for page in pages for mapping in page["ResourceTagMappingList"]]
            vpcs = self._clients("ec2").describe_vpcs(
                Filters=[{"Name": f"tag:{TAG_DRILL}", "Values": [self._drill_id]}]
            )
            network: list[Any] = [vpc.get("Tags", []) for vpc in vpcs["Vpcs"]]
        except AwsError as exc:
            raise aws_problem(f"The sweep of drill {self._drill_id} could not look everywhere.", exc) from exc
        if any(self._is_failover(tags) for tags in [*every, *network]):
            raise RefusedError(
                f"The environment {self._drill_id} is not a drill's: something in it carries another mode.",
                hint="A failover is never swept. Nothing was changed.",
            )

    def _named(self, name: str) -> bool:
        """Tell whether a name is this drill's; names cut to a service's limit keep their end, where the id stands."""
        if name.startswith(self._prefix):
            return True
        return self._drill_id in name and bool(_DRILL_ID.match(self._drill_id))

    def _tagged(self, tags: Iterable[object]) -> bool:
        """Tell whether AWS tags, of whichever spelling, are this drill's. A failover's never are."""
        flat = {}
        for tag in tags:
            if isinstance(tag, dict):
                flat[tag.get("Key", tag.get("key"))] = tag.get("Value", tag.get("value"))
        return flat.get(TAG_DRILL) == self._drill_id and flat.get(TAG_MODE, "drill") == "drill"

    def _how(self, name: str, tags: Iterable[object]) -> str | None:
        tags = list(tags)
        if self._is_failover(tags):
            return None
        return "tag" if self._tagged(tags) else "name" if self._named(name) else None

    @staticmethod
    def _is_failover(tags: Iterable[object]) -> bool:
        return any(
            isinstance(tag, dict)
            and tag.get("Key", tag.get("key")) == TAG_MODE
            and tag.get("Value", tag.get("value")) != "drill"
            for tag in tags
        )

    def _tasks_and_clusters(self) -> Iterator[Leftover]:
        ecs = self._clients("ecs")
        arns = [arn for page in ecs.get_paginator("list_clusters").paginate() for arn in page["clusterArns"]]
        for start in range(0, len(arns), 100):
            clusters = ecs.describe_clusters(clusters=arns[start : start + 100], include=["TAGS"])["clusters"]
            for cluster in clusters:
                how = self._how(cluster["clusterName"], cluster.get("tags", []))
                if how is None or cluster.get("status") in _LEAVING:
                    continue
                for page in ecs.get_paginator("list_tasks").paginate(
                    cluster=cluster["clusterArn"], desiredStatus="RUNNING"
                ):
                    for task in page["taskArns"]:
                        yield Leftover(rank=0, kind="ecs task", id=f"{cluster['clusterArn']} {task}", found_by="name")
                yield Leftover(
                    rank=2, kind="ecs cluster", id=cluster["clusterArn"], found_by=how, state=cluster.get("status", "")
                )

    def _task_definitions(self) -> Iterator[Leftover]:
        ecs = self._clients("ecs")
        families: list[str] = []
        for page in ecs.get_paginator("list_task_definition_families").paginate(status="ALL"):
            families += [family for family in page["families"] if self._named(family)]
        for family in families:
            for status in ("ACTIVE", "INACTIVE"):
                for definitions in ecs.get_paginator("list_task_definitions").paginate(
                    familyPrefix=family, status=status
                ):
                    for arn in definitions["taskDefinitionArns"]:
                        yield Leftover(rank=1, kind="ecs task definition", id=arn, found_by="name", state=status)

    def _databases(self) -> Iterator[Leftover]:
        rds = self._clients("rds")
        for page in rds.get_paginator("describe_db_instances").paginate():
            for instance in page["DBInstances"]:
                how = self._how(instance["DBInstanceIdentifier"], instance.get("TagList", []))
                if how:
                    yield Leftover(
                        rank=3,
                        kind="rds instance",
                        id=instance["DBInstanceIdentifier"],
                        found_by=how,
                        state=instance.get("DBInstanceStatus", ""),
                    )
        for groups in rds.get_paginator("describe_db_subnet_groups").paginate():
            for group in groups["DBSubnetGroups"]:
                if self._named(group["DBSubnetGroupName"]):
                    yield Leftover(rank=5, kind="rds subnet group", id=group["DBSubnetGroupName"], found_by="name")
        for parameters in rds.get_paginator("describe_db_parameter_groups").paginate():
            for parameter in parameters["DBParameterGroups"]:
                if self._named(parameter["DBParameterGroupName"]):
                    yield Leftover(
                        rank=5, kind="rds parameter group", id=parameter["DBParameterGroupName"], found_by="name"
                    )

    def _caches(self) -> Iterator[Leftover]:
        cache = self._clients("elasticache")
        for page in cache.get_paginator("describe_replication_groups").paginate():
            for group in page["ReplicationGroups"]:
                if self._named(group["ReplicationGroupId"]):
                    yield Leftover(
                        rank=4,
                        kind="elasticache group",
                        id=group["ReplicationGroupId"],
                        found_by="name",
                        state=group.get("Status", ""),
                    )
        for groups in cache.get_paginator("describe_cache_subnet_groups").paginate():
            for subnets in groups["CacheSubnetGroups"]:
                if self._named(subnets["CacheSubnetGroupName"]):
                    yield Leftover(
                        rank=5, kind="elasticache subnet group", id=subnets["CacheSubnetGroupName"], found_by="name"
                    )

    def _network(self) -> Iterator[Leftover]:
        ec2 = self._clients("ec2")
        by_tag = [
            {"Name": f"tag:{TAG_DRILL}", "Values": [self._drill_id]},
            {"Name": f"tag:{TAG_MODE}", "Values": ["drill"]},
        ]
        for vpc in ec2.describe_vpcs(Filters=by_tag)["Vpcs"]:  # type: ignore[arg-type]  # plain mappings are filters
            vpc_id = vpc["VpcId"]
            inside = [{"Name": "vpc-id", "Values": [vpc_id]}]
            for endpoint in ec2.describe_vpc_endpoints(Filters=inside)["VpcEndpoints"]:  # type: ignore[arg-type]  # as above
                if endpoint.get("State") not in _LEAVING:
                    yield Leftover(rank=6, kind="vpc endpoint", id=endpoint["VpcEndpointId"], found_by="vpc")
            for interface in ec2.describe_network_interfaces(Filters=inside)["NetworkInterfaces"]:  # type: ignore[arg-type]  # as above
                yield Leftover(
                    rank=7,
                    kind="network interface",
                    id=interface["NetworkInterfaceId"],
                    found_by="vpc",
                    state=interface.get("Status", ""),
                )
            for group in ec2.describe_security_groups(Filters=inside)["SecurityGroups"]:  # type: ignore[arg-type]  # as above
                if group["GroupName"] != "default":
                    yield Leftover(rank=8, kind="security group", id=group["GroupId"], found_by="vpc")
            for table in ec2.describe_route_tables(Filters=inside)["RouteTables"]:  # type: ignore[arg-type]  # as above
                if not any(link.get("Main") for link in table.get("Associations", [])):
                    yield Leftover(rank=10, kind="route table", id=table["RouteTableId"], found_by="vpc")
            for subnet in ec2.describe_subnets(Filters=inside)["Subnets"]:  # type: ignore[arg-type]  # as above
                yield Leftover(rank=9, kind="subnet", id=subnet["SubnetId"], found_by="vpc")
            yield Leftover(rank=11, kind="vpc", id=vpc_id, found_by="tag")

    def _log_groups(self) -> Iterator[Leftover]:
        logs = self._clients("logs")
        for page in logs.get_paginator("describe_log_groups").paginate():
            for group in page["logGroups"]:
                if self._drill_in_path(group["logGroupName"]):
                    yield Leftover(rank=12, kind="log group", id=group["logGroupName"], found_by="name")

    def _drill_in_path(self, name: str) -> bool:
        return any(self._named(part) for part in name.split("/"))

    def _secrets(self) -> Iterator[Leftover]:
        secrets = self._clients("secretsmanager")
        for page in secrets.get_paginator("list_secrets").paginate():
            for secret in page["SecretList"]:
                how = self._how(secret["Name"], secret.get("Tags", []))
                # RDS deletes the secrets it manages together with their database, and nobody else may.
                if (how or self._drill_in_path(secret["Name"])) and not secret.get("OwningService"):
                    yield Leftover(rank=12, kind="secret", id=secret["ARN"], found_by=how or "name")

    def _tagged_elsewhere(self) -> Iterator[Leftover]:
        """What carries the tag but is of no kind above; believed for kinds that nothing above asked about."""
        tagging = self._clients("resourcegroupstaggingapi")
        asked = ("ec2:", "rds:", "elasticache:", "ecs:", "logs:", "secretsmanager:")
        pages = tagging.get_paginator("get_resources").paginate(
            TagFilters=[{"Key": TAG_DRILL, "Values": [self._drill_id]}, {"Key": TAG_MODE, "Values": ["drill"]}]
        )
        for page in pages:
            for mapping in page["ResourceTagMappingList"]:
                arn = mapping["ResourceARN"]
                service = arn.split(":", 3)[2] + ":"
                if service not in asked:
                    yield Leftover(rank=13, kind="tagged resource", id=arn, found_by="tag")

    # --- removing

    def remove(self, leftovers: Iterable[Leftover], note: Callable[[str], None]) -> list[str]:
        """Delete what can be deleted now; return the problems met. What AWS is deleting already is left alone."""
        problems = []
        for leftover in sorted(leftovers):
            if leftover.state in _LEAVING - {"INACTIVE"}:
                continue
            try:
                self._delete(leftover)
                note(f"removed {leftover.describe()}")
            except AwsError as exc:
                code = exc.response.get("Error", {}).get("Code", "") if isinstance(exc, ClientError) else ""
                if "NotFound" not in code and "DoesNotExist" not in code:
                    problems.append(f"{leftover.describe()}: {exc}")
        return problems

    def _delete(self, leftover: Leftover) -> None:  # noqa: PLR0912  # one branch per kind reads as the table it is
        ec2, rds, ecs = self._clients("ec2"), self._clients("rds"), self._clients("ecs")
        cache, name = self._clients("elasticache"), leftover.id
        match leftover.kind:
            case "ecs task":
                cluster, task = name.split(" ")
                ecs.stop_task(cluster=cluster, task=task, reason="left over by a drill")
            case "ecs task definition":
                if leftover.state == "ACTIVE":
                    ecs.deregister_task_definition(taskDefinition=name)
                ecs.delete_task_definitions(taskDefinitions=[name])
            case "ecs cluster":
                ecs.delete_cluster(cluster=name)
            case "rds instance":
                rds.modify_db_instance(DBInstanceIdentifier=name, DeletionProtection=False, ApplyImmediately=True)
                rds.delete_db_instance(DBInstanceIdentifier=name, SkipFinalSnapshot=True, DeleteAutomatedBackups=True)
            case "rds subnet group":
                rds.delete_db_subnet_group(DBSubnetGroupName=name)
            case "rds parameter group":
                rds.delete_db_parameter_group(DBParameterGroupName=name)
            case "elasticache group":
                cache.delete_replication_group(ReplicationGroupId=name, RetainPrimaryCluster=False)
            case "elasticache subnet group":
                cache.delete_cache_subnet_group(CacheSubnetGroupName=name)
            case "vpc endpoint":
                ec2.delete_vpc_endpoints(VpcEndpointIds=[name])
            case "network interface":
                # An interface in use belongs to something that takes it along when it goes.
                if leftover.state != "in-use":
                    ec2.delete_network_interface(NetworkInterfaceId=name)
            case "security group":
                self._empty_security_group(name)
                ec2.delete_security_group(GroupId=name)
            case "route table":
                self._release_route_table(name)
                ec2.delete_route_table(RouteTableId=name)
            case "subnet":
                ec2.delete_subnet(SubnetId=name)
            case "vpc":
                ec2.delete_vpc(VpcId=name)
            case "log group":
                self._clients("logs").delete_log_group(logGroupName=name)
            case "secret":
                self._clients("secretsmanager").delete_secret(SecretId=name, ForceDeleteWithoutRecovery=True)

    def _empty_security_group(self, group: str) -> None:
        """Take the rules out first: two groups whose rules name each other can otherwise never go."""
        ec2 = self._clients("ec2")
        filters = [{"Name": "group-id", "Values": [group]}]
        rules = ec2.describe_security_group_rules(Filters=filters)["SecurityGroupRules"]  # type: ignore[arg-type]  # plain mappings are filters
        incoming = [rule["SecurityGroupRuleId"] for rule in rules if not rule.get("IsEgress")]
        outgoing = [rule["SecurityGroupRuleId"] for rule in rules if rule.get("IsEgress")]
        with suppress(ClientError):  # the deletion that follows tells what is really in the way
            if incoming:
                ec2.revoke_security_group_ingress(GroupId=group, SecurityGroupRuleIds=incoming)
            if outgoing:
                ec2.revoke_security_group_egress(GroupId=group, SecurityGroupRuleIds=outgoing)

    def _release_route_table(self, table: str) -> None:
        """Take it from its subnets: an association that was being made when the drill died is in no state."""
        ec2 = self._clients("ec2")
        for found in ec2.describe_route_tables(RouteTableIds=[table])["RouteTables"]:
            for link in found.get("Associations", []):
                with suppress(ClientError):  # the deletion that follows tells what is really in the way
                    ec2.disassociate_route_table(AssociationId=link["RouteTableAssociationId"])

    def sweep(
        self, note: Callable[[str], None], *, patience: float = 2400.0, pause: float = 5.0
    ) -> tuple[list[Leftover], list[Leftover]]:
        """Find and remove until nothing is found or `patience` seconds are over.

        Returns what the first look found and what the last one still found. A database that was being made when its
        drill died takes a quarter of an hour to come and as long to go, so passes repeat, ever more slowly: each lists
        what the account has, at rates that AWS limits.
        """
        first = remaining = self.find()
        if not first:
            return first, remaining
        said: set[str] = set()
        with suppress(_SomethingLeftError):
            for attempt in stamina.retry_context(
                on=_SomethingLeftError,
                attempts=None,
                timeout=patience,
                wait_initial=pause,
                wait_jitter=0,
                wait_max=6 * pause,
            ):
                with attempt:
                    for problem in self.remove(remaining, note):
                        if problem not in said:  # whoever waits wants to know what for, and need not hear it again
                            note(problem)
                            said.add(problem)
                    remaining = self.find()
                    _refuse_leftovers(remaining)
        return first, remaining


class _SomethingLeftError(Exception):
    """A pass has found things that still exist: the next one may find fewer."""


def _refuse_leftovers(remaining: list[Leftover]) -> None:
    if remaining:
        raise _SomethingLeftError
