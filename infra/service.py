"""Where the recovery task runs: an ECS cluster, the task definition, and the log group its events are read from."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final

import pulumi
import pulumi_aws as aws

from infra import names

LOG_STREAM_PREFIX: Final = "recovery"

# Fargate's limit: a loader that is told to stop needs time to close its connections and say how far it came.
_STOP_TIMEOUT_SECONDS: Final = 120


@dataclass(frozen=True, kw_only=True)
class RecoveryServiceArgs:
    """`label` names cluster, family and log group. Sizes as Fargate sells them; roles by ARN, never looked up."""

    region: str
    label: str
    image: str
    cpu: int
    memory_mb: int
    ephemeral_storage_gb: int
    task_role_arn: str
    execution_role_arn: str
    key_arn: pulumi.Input[str]
    log_retention_days: int
    insights: bool


class RecoveryService(pulumi.ComponentResource):
    """A Fargate cluster and the definition of the task that restores and verifies inside the network."""

    cluster_arn: pulumi.Output[str]
    task_definition_arn: pulumi.Output[str]
    log_group_name: pulumi.Output[str]

    def __init__(self, name: str, args: RecoveryServiceArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("agentverse:infra:RecoveryService", name, None, opts)
        child = pulumi.ResourceOptions(parent=self)
        logs = aws.cloudwatch.LogGroup(
            f"{name}-logs",
            region=args.region,
            name=f"{args.label}-recovery",
            retention_in_days=args.log_retention_days,
            kms_key_id=args.key_arn,
            opts=child,
        )
        cluster = aws.ecs.Cluster(
            f"{name}-cluster",
            region=args.region,
            name=args.label,
            settings=[
                # Off in a drill: insights write to a log group of their own, which outlives the cluster.
                aws.ecs.ClusterSettingArgs(name="containerInsights", value="enabled" if args.insights else "disabled")
            ],
            opts=child,
        )
        task = aws.ecs.TaskDefinition(
            f"{name}-task",
            region=args.region,
            family=f"{args.label}-recovery",
            requires_compatibilities=["FARGATE"],
            network_mode="awsvpc",
            cpu=str(args.cpu),
            memory=str(args.memory_mb),
            ephemeral_storage=aws.ecs.TaskDefinitionEphemeralStorageArgs(size_in_gib=args.ephemeral_storage_gb),
            runtime_platform=aws.ecs.TaskDefinitionRuntimePlatformArgs(
                operating_system_family="LINUX", cpu_architecture="X86_64"
            ),
            task_role_arn=args.task_role_arn,
            execution_role_arn=args.execution_role_arn,
            volumes=[aws.ecs.TaskDefinitionVolumeArgs(name="scratch")],
            container_definitions=logs.name.apply(lambda group: json.dumps([container(args, group)])),
            opts=child,
        )
        self.cluster_arn = cluster.arn
        self.task_definition_arn = task.arn
        self.log_group_name = logs.name
        self.register_outputs({"clusterArn": self.cluster_arn, "taskDefinitionArn": self.task_definition_arn})


def container(args: RecoveryServiceArgs, log_group: str) -> dict[str, object]:
    """Return the definition of the one container: nothing of its image can be written, /tmp is the scratch disk."""
    return {
        "name": names.RECOVERY_CONTAINER,
        "image": args.image,
        "essential": True,
        "cpu": args.cpu,
        "memory": args.memory_mb,
        "readonlyRootFilesystem": True,
        "stopTimeout": _STOP_TIMEOUT_SECONDS,
        "linuxParameters": {"initProcessEnabled": True},
        "environment": [
            {"name": "AWS_DEFAULT_REGION", "value": args.region},
            {"name": "AWS_REGION", "value": args.region},
        ],
        "mountPoints": [{"sourceVolume": "scratch", "containerPath": "/tmp", "readOnly": False}],  # noqa: S108  # the container's own
        "logConfiguration": {
            "logDriver": "awslogs",
            "options": {
                "awslogs-group": log_group,
                "awslogs-region": args.region,
                "awslogs-stream-prefix": LOG_STREAM_PREFIX,
                # ECS's own default drops lines when they come too fast, and a lost line may be the task's result.
                "mode": "blocking",
            },
        },
    }
