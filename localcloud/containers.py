"""ECS: a task is a process, with its exit code and logs; RunTask, StopTask and what describes them say the truth."""

from __future__ import annotations

import inspect
import logging
import threading
from typing import Any

from moto.core.exceptions import ServiceException
from moto.ec2.models import ec2_backends
from moto.ec2.models.elastic_network_interfaces import NetworkInterface
from moto.ecs.exceptions import InvalidParameterException
from moto.ecs.models import EC2ContainerServiceBackend, Task
from moto.ecs.responses import EC2ContainerServiceResponse

from localcloud.ecs_process import end_marked
from localcloud.ecs_task import STATUS_ATTRIBUTE, TaskRun
from localcloud.layers import Layers
from localcloud.moto_errors import MOTO_ERRORS
from localcloud.reconciler import Context, Reconciler

_log = logging.getLogger(__name__)

# How moto's own methods are called, read before they are hooked: callers mix positions and keywords.
_RUN_TASK = inspect.signature(EC2ContainerServiceBackend.run_task)
_LIST_TASKS = inspect.signature(EC2ContainerServiceBackend.list_tasks)

_NOT_STOPPED = ("PROVISIONING", "PENDING", "ACTIVATING", "RUNNING", "DEACTIVATING", "STOPPING", "DEPROVISIONING")


class _ClusterContainsTasksError(ServiceException):
    code = "ClusterContainsTasksException"


class _ContainersReconciler:
    """Runs the processes behind moto's ECS tasks."""

    name = "ecs tasks"

    def __init__(self, context: Context) -> None:
        self._context = context
        self._layers = Layers()
        self._lock = threading.RLock()  # around moto's dictionaries of tasks, never around a wait
        self._runs: dict[str, TaskRun] = {}
        self._dark: frozenset[str] = frozenset()
        self._request = threading.local()

    def install(self) -> None:
        # A cloud that was killed could not end what its tasks had started: nothing else bears this home's mark.
        ended = end_marked(f"{self._context.home}:")
        if ended:
            _log.info("ended %d processes of an earlier cloud's tasks", ended)
        wrap = self._layers.wrap
        wrap(EC2ContainerServiceBackend, "run_task", self._run_task)
        wrap(EC2ContainerServiceBackend, "stop_task", self._stop_task)
        wrap(EC2ContainerServiceBackend, "describe_tasks", self._describe_tasks)
        wrap(EC2ContainerServiceBackend, "list_tasks", self._list_tasks)
        wrap(EC2ContainerServiceBackend, "describe_clusters", self._describe_clusters)
        wrap(EC2ContainerServiceBackend, "delete_cluster", self._delete_cluster)
        wrap(EC2ContainerServiceBackend, "iter_tagged_resources", self._tagged_resources)
        wrap(EC2ContainerServiceBackend, "_calculate_task_resource_requirements", self._requirements)
        wrap(EC2ContainerServiceResponse, "run_task", self._run_task_request)
        wrap(EC2ContainerServiceResponse, "describe_tasks", self._describe_tasks_request)
        wrap(Task, "last_status", self._last_status)
        if not hasattr(NetworkInterface, "private_dns_name"):
            # moto sets it only where the VPC gives host names, and reads it everywhere.
            NetworkInterface.private_dns_name = ""

    def reset(self) -> None:
        with self._lock:
            runs = list(self._runs.values())
        for run in runs:
            run.kill()
        with self._lock:
            self._runs.clear()
            self._dark = frozenset()

    def suspend(self, region: str) -> None:
        self._change_dark(self._dark | {region}, region)

    def resume(self, region: str) -> None:
        self._change_dark(self._dark - {region}, region)

    def stop(self) -> None:
        self.reset()
        self._layers.undo()

    def status(self) -> list[dict[str, str]]:
        with self._lock:
            return [row for run in self._runs.values() for row in run.rows()]

    def _change_dark(self, dark: frozenset[str], region: str) -> None:
        with self._lock:
            self._dark = dark
            runs = [run for run in self._runs.values() if run.region == region]
        for run in runs:
            run.region_changed()

    # --- what AWS does and moto does not -----------------------------------------------------------------------------

    def _run_task_request(self, inner: Any, response: Any) -> Any:
        self._request.propagate = response._get_param("propagateTags")  # noqa: SLF001  # moto's way to read parameters
        try:
            return inner(response)
        finally:
            self._request.propagate = None

    def _run_task(self, inner: Any, *positional: Any, **named: Any) -> list[Any]:
        call = _RUN_TASK.bind(*positional, **named)
        call.apply_defaults()
        asked = call.arguments
        backend = asked["self"]
        definition = backend.describe_task_definition(asked["task_definition_str"])
        self._refuse_what_aws_refuses(backend, definition, asked)
        if getattr(self._request, "propagate", None) == "TASK_DEFINITION":
            own = {tag["key"] for tag in asked["tags"] or []}
            asked["tags"] = [*(asked["tags"] or []), *(tag for tag in definition.tags if tag["key"] not in own)]
        asked["networking_configuration"] = self._with_security_groups(backend, asked["networking_configuration"])
        with self._lock:
            tasks: list[Any] = inner(*call.args, **call.kwargs)
            for task in tasks:
                self._finish_interfaces(task)
            runs = [TaskRun(task, definition, self._context, lambda: self._dark, self._ended) for task in tasks]
            self._runs.update((run.task.task_arn, run) for run in runs)
        for run in runs:
            run.begin()
        return tasks

    def _refuse_what_aws_refuses(self, backend: Any, definition: Any, asked: dict[str, Any]) -> None:
        cluster = backend._get_cluster(asked["cluster_str"])  # noqa: SLF001  # the one way to a cluster
        names = {item["name"] for item in definition.container_definitions}
        for item in (asked["overrides"] or {}).get("containerOverrides", []):
            if item["name"] not in names:
                raise InvalidParameterException(
                    f"Override for container named {item['name']} is not a container in the TaskDefinition."
                )
        launch_type = asked["launch_type"]
        if launch_type == "FARGATE" and "FARGATE" not in (definition.requires_compatibilities or []):
            raise InvalidParameterException("Task definition does not support launch_type FARGATE.")
        strategy = asked["capacity_provider_strategy"] or cluster.default_capacity_provider_strategy
        on_instances = launch_type in {None, "EC2"} and not strategy
        if on_instances and not backend.container_instances.get(cluster.name):
            raise InvalidParameterException("No Container Instances were found in your cluster.")

    def _with_security_groups(self, backend: Any, network: dict[str, Any] | None) -> dict[str, Any] | None:
        """Return the network configuration with the VPC's default security group where none is named."""
        vpc = (network or {}).get("awsvpcConfiguration")
        if not network or not vpc:
            return network
        ec2 = ec2_backends[backend.account_id][backend.region_name]
        for subnet in vpc["subnets"]:
            try:
                ec2.get_subnet(subnet)
            except MOTO_ERRORS as exc:
                raise InvalidParameterException(f"The subnet ID '{subnet}' does not exist") from exc
        if vpc.get("securityGroups"):
            return network
        default = ec2.get_default_security_group(ec2.get_subnet(vpc["subnets"][0]).vpc_id)
        return {**network, "awsvpcConfiguration": {**vpc, "securityGroups": [default.id] if default else []}}

    def _finish_interfaces(self, task: Any) -> None:
        ec2 = ec2_backends[self._context.account][task.region_name]
        for attachment in task.attachments:
            attachment["details"] = [detail for detail in attachment["details"] if detail["value"]]
            for detail in attachment["details"]:
                if detail["name"] == "networkInterfaceId":
                    interface = ec2.enis[detail["value"]]
                    interface.description = (
                        f"arn:aws:ecs:{task.region_name}:{self._context.account}:attachment/{attachment['id']}"
                    )

    def _ended(self, run: TaskRun) -> None:
        with self._lock:
            self._runs.pop(run.task.task_arn, None)

    def _stop_task(self, inner: Any, backend: Any, cluster_str: str, task_str: str, reason: str | None) -> Any:
        cluster = backend._get_cluster(cluster_str)  # noqa: SLF001  # the one way to a cluster
        task_id = task_str.rpartition("/")[2]
        with self._lock:
            found = [task for task in backend.tasks.get(cluster.name, {}).values() if task.id == task_id]
            run = self._runs.get(found[0].task_arn) if found else None
        if not found:
            raise InvalidParameterException("The referenced task was not found.")
        if STATUS_ATTRIBUTE not in vars(found[0]):
            return inner(backend, cluster_str, task_str, reason)
        if run is not None and found[0].desired_status != "STOPPED":
            run.stop(reason or "Task stopped by user")
        return found[0]

    def _describe_tasks(self, inner: Any, backend: Any, cluster_str: str, tasks: list[str]) -> list[Any]:
        cluster = backend._get_cluster(cluster_str)  # noqa: SLF001  # the one way to a cluster
        with self._lock:
            found = inner(backend, cluster_str, tasks)
        return [task for task in found if task.cluster_name == cluster.name]

    def _describe_tasks_request(self, inner: Any, response: Any) -> Any:
        result = inner(response)
        found = {task.id for task in result.result["tasks"]}
        region, account = response.region, response.current_account
        cluster = response._get_param("cluster", "default").split("/")[-1]  # noqa: SLF001  # moto's way to read them
        for asked in response._get_param("tasks", []):  # noqa: SLF001  # as above
            task_id = asked.rpartition("/")[2]
            if task_id not in found:
                arn = asked if asked.startswith("arn:") else f"arn:aws:ecs:{region}:{account}:task/{cluster}/{task_id}"
                result.result["failures"].append({"arn": arn, "reason": "MISSING"})
        return result

    def _list_tasks(self, inner: Any, *positional: Any, **named: Any) -> list[Any]:
        call = _LIST_TASKS.bind(*positional, **named)
        call.apply_defaults()
        # AWS lists what is meant to run unless told otherwise.
        call.arguments["desiredStatus"] = call.arguments["desiredStatus"] or "RUNNING"
        with self._lock:
            found: list[Any] = inner(*call.args, **call.kwargs)
        return found

    def _describe_clusters(self, inner: Any, backend: Any, cluster_names: list[str]) -> Any:
        clusters, failures = inner(backend, cluster_names)
        with self._lock:
            for cluster in clusters:
                states = [task.last_status for task in backend.tasks.get(cluster.name, {}).values()]
                cluster.running_tasks_count = states.count("RUNNING")
                cluster.pending_tasks_count = sum(state in ("PROVISIONING", "PENDING") for state in states)
        return clusters, failures

    def _delete_cluster(self, inner: Any, backend: Any, cluster_str: str) -> Any:
        cluster = backend._get_cluster(cluster_str)  # noqa: SLF001  # the one way to a cluster
        with self._lock:
            if any(task.last_status in _NOT_STOPPED for task in backend.tasks.get(cluster.name, {}).values()):
                raise _ClusterContainsTasksError("The Cluster cannot be deleted while Tasks are active.")
            return inner(backend, cluster_str)

    def _tagged_resources(self, inner: Any, backend: Any) -> Any:
        """Leave out tasks that have stopped: they are a memory, not a resource."""
        with self._lock:
            stopped = {
                task.task_arn
                for tasks in backend.tasks.values()
                for task in tasks.values()
                if task.last_status == "STOPPED"
            }
            return [resource for resource in inner(backend) if resource.arn not in stopped]

    def _requirements(self, inner: Any, definition: Any) -> dict[str, Any]:
        """Let containers do without memory of their own, as Fargate does where the task has some."""
        missing = [
            item
            for item in definition.container_definitions
            if not {"memory", "Memory", "memoryReservation", "MemoryReservation"} & item.keys()
        ]
        for item in missing:
            item["memoryReservation"] = 0
        try:
            found: dict[str, Any] = inner(definition)
        finally:
            for item in missing:
                del item["memoryReservation"]
        return found

    def _last_status(self, inner: Any, task: Any) -> Any:
        return vars(task).get(STATUS_ATTRIBUTE) or inner(task)


def reconciler(context: Context) -> Reconciler:
    """Return the part of the cloud that runs ECS tasks."""
    return _ContainersReconciler(context)
