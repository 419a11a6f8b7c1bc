"""One ECS task: PROVISIONING, PENDING, RUNNING, STOPPED, as its processes really are, written onto moto's record."""

from __future__ import annotations

import contextlib
import logging
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from moto.ec2.models import ec2_backends

from localcloud.ecs_launch import Launch, StartFailureError, TaskPlace, prepare
from localcloud.ecs_process import ContainerProcess
from localcloud.moto_errors import MOTO_ERRORS
from localcloud.reconciler import Context
from localcloud.settings import Home

_log = logging.getLogger(__name__)

# The task's state on moto's record: an attribute of its own, because moto's `last_status` walks by itself.
STATUS_ATTRIBUTE = "localcloud_status"


class _StoppedEarlyError(Exception):
    """Raised inside a task's thread when it is asked to stop before its containers have started."""


def _container_record(definition: Mapping[str, Any], task: Any) -> dict[str, Any]:
    details = {detail["name"]: detail["value"] for attachment in task.attachments for detail in attachment["details"]}
    account, region = task.task_arn.split(":")[4], task.region_name
    interfaces = [
        {"attachmentId": attachment["id"], "privateIpv4Address": details["privateIPv4Address"]}
        for attachment in task.attachments
    ]
    return {
        "containerArn": f"arn:aws:ecs:{region}:{account}:container/{task.cluster_name}/{task.id}/{uuid.uuid4()}",
        "taskArn": task.task_arn,
        "name": definition["name"],
        "image": definition["image"],
        "lastStatus": "PENDING",
        "networkInterfaces": interfaces,
        "healthStatus": "UNKNOWN",
        "cpu": str(definition.get("cpu", 0)),
        **({"memory": str(definition["memory"])} if definition.get("memory") else {}),
    }


class TaskRun:
    """A task that runs: its thread, its containers, its record in moto.

    The record is only written from here, one attribute at a time, and read by describe calls without a lock.
    """

    def __init__(
        self,
        task: Any,
        definition: Any,
        context: Context,
        dark: Callable[[], frozenset[str]],
        on_end: Callable[[TaskRun], None],
    ) -> None:
        self.task = task
        self.region: str = task.region_name
        self._definition = definition
        self._context = context
        self._dark = dark
        self._on_end = on_end
        self._folder = Home(path=context.home).run / context.instance_id / "tasks" / task.id
        self._changed = threading.Condition()
        self._containers: list[ContainerProcess] = []
        self._exited: set[str] = set()
        self._stop_asked = False
        self._kill_asked = False
        self._thread = threading.Thread(target=self._live, name=f"task {task.id}", daemon=True)
        task.containers = [_container_record(item, task) for item in definition.container_definitions]
        task.stopped_reason = None
        task.created_at = datetime.now(UTC)
        task.cpu = definition.cpu
        task.memory = definition.memory
        task.connectivity = "CONNECTED"
        task.availability_zone = self._zone()
        self._set_status("PROVISIONING")

    def _zone(self) -> str:
        backend = ec2_backends[self._context.account][self.region]
        for attachment in self.task.attachments:
            for detail in attachment["details"]:
                if detail["name"] == "subnetId":
                    return str(backend.get_subnet(detail["value"]).availability_zone)
        return f"{self.region}a"

    def begin(self) -> None:
        """Let the task live; returns at once."""
        self._thread.start()

    def stop(self, reason: str) -> None:
        """Stop the task as StopTask does; returns at once."""
        task = self.task
        task.desired_status = "STOPPED"
        task.stop_code = "UserInitiated"
        task.stopped_reason = reason
        task.stopping_at = datetime.now(UTC)
        with self._changed:
            self._stop_asked = True
            self._changed.notify_all()

    def kill(self) -> None:
        """End the task's processes now: the cloud ends or forgets. Returns when they are gone."""
        with self._changed:
            self._stop_asked = self._kill_asked = True
            containers = list(self._containers)
            self._changed.notify_all()
        for container in containers:
            container.kill()
        if self._thread.is_alive():
            self._thread.join(10.0)

    def region_changed(self) -> None:
        """Suspend or resume the processes: the region went dark or came back."""
        with self._changed:
            for container in self._containers:
                if self.region in self._dark():
                    container.suspend()
                else:
                    container.resume()
            self._changed.notify_all()

    def rows(self) -> list[dict[str, str]]:
        state = "suspended" if self.region in self._dark() else self.task.last_status
        return [
            {
                "kind": "ecs task",
                "name": f"{self.task.cluster_name}/{self.task.id}/{container.launch.name}",
                "region": self.region,
                "state": state,
                "address": f"pid {container.pid}",
            }
            for container in list(self._containers)
        ]

    def _set_status(self, status: str) -> None:
        setattr(self.task, STATUS_ATTRIBUTE, status)

    def _live(self) -> None:
        try:
            try:
                self._start()
                self._watch()
            finally:
                self._end_containers()
        except _StoppedEarlyError:
            _log.info("task %s was stopped before it ran", self.task.id)
        except StartFailureError as exc:
            self._note_end("TaskFailedToStart", str(exc))
            for record in self.task.containers:
                if "exitCode" not in record:
                    record["reason"] = str(exc)
        except Exception as exc:  # noqa: BLE001  # the thread's edge: the task must still end, and say why
            _log.exception("task %s failed inside the embedded cloud", self.task.id)
            self._note_end("TaskFailedToStart", f"InternalError: {exc}")
        finally:
            self._finish()

    def _note_end(self, code: str, reason: str) -> None:
        """Say why the task ends, unless a person said it first."""
        if not self._stop_asked:
            self.task.stop_code = code
            self.task.stopped_reason = reason

    def _wait_for_light(self) -> None:
        """Wait while the region is dark; raise _StoppedEarlyError when the task is to stop."""
        with self._changed:
            self._changed.wait_for(lambda: self._stop_asked or self.region not in self._dark())
            if self._stop_asked:
                raise _StoppedEarlyError

    def _start(self) -> None:
        self._wait_for_light()
        self._set_status("PENDING")
        self.task.connectivity_at = datetime.now(UTC)
        self.task.pull_started_at = datetime.now(UTC)
        launches = self._prepare()
        self.task.pull_stopped_at = datetime.now(UTC)
        self._folder.mkdir(parents=True)
        for launch in launches:
            self._wait_for_light()
            container = ContainerProcess(launch, self._context.home, self._folder)
            with self._changed:
                container.start()
                self._containers.append(container)
                if self.region in self._dark():
                    container.suspend()
            self._record(launch.name)["runtimeId"] = f"{self.task.id}-{container.pid}"
            self._record(launch.name)["lastStatus"] = "RUNNING"
            threading.Thread(
                target=self._wait_container, args=(container,), name=f"container {launch.name}", daemon=True
            ).start()
        self.task.started_at = datetime.now(UTC)
        self._set_status("RUNNING")

    def _prepare(self) -> list[Launch]:
        overrides = {item["name"]: item for item in self.task.overrides.get("containerOverrides", [])}
        place = TaskPlace(task_id=self.task.id, account=self._context.account, region=self.region, dark=self._dark())
        return [
            prepare(item, overrides.get(item["name"], {}), self._context, place)
            for item in self._definition.container_definitions
        ]

    def _record(self, name: str) -> dict[str, Any]:
        return next(record for record in self.task.containers if record["name"] == name)

    def _wait_container(self, container: ContainerProcess) -> None:
        record = self._record(container.launch.name)
        try:
            record["exitCode"] = container.wait()
        finally:
            record["lastStatus"] = "STOPPED"
            with self._changed:
                self._exited.add(container.launch.name)
                self._changed.notify_all()

    def _over(self) -> bool:
        essential = {container.launch.name for container in self._containers if container.launch.essential}
        names = {container.launch.name for container in self._containers}
        return self._stop_asked or bool(essential & self._exited) or names == self._exited

    def _watch(self) -> None:
        with self._changed:
            self._changed.wait_for(self._over)
            essential_ended = bool(self._exited)
        if essential_ended:
            self._note_end("EssentialContainerExited", "Essential container in task exited")

    def _end_containers(self) -> None:
        self.task.desired_status = "STOPPED"
        if getattr(self.task, "stopping_at", None) is None:
            self.task.stopping_at = datetime.now(UTC)
        self._set_status("STOPPING")
        left = [container for container in self._containers if container.launch.name not in self._exited]
        enders = [
            threading.Thread(target=container.kill if self._kill_asked else container.terminate, daemon=True)
            for container in left
        ]
        for ender in enders:
            ender.start()
        with self._changed:
            self._changed.wait_for(lambda: len(self._exited) == len(self._containers))

    def _finish(self) -> None:
        now = datetime.now(UTC)
        if self._containers:
            self.task.execution_stopped_at = now
        self._set_status("DEPROVISIONING")
        for record in self.task.containers:
            record["lastStatus"] = "STOPPED"
        self._delete_interfaces()
        # A process that left the container's group may still write there.
        for _ in range(3):
            with contextlib.suppress(FileNotFoundError):
                shutil.rmtree(self._folder, ignore_errors=True)
            if not Path(self._folder).exists():
                break
            time.sleep(0.05)
        self.task.stopped_at = datetime.now(UTC)
        self._set_status("STOPPED")
        self._on_end(self)

    def _delete_interfaces(self) -> None:
        backend = ec2_backends[self._context.account][self.region]
        for attachment in self.task.attachments:
            attachment["status"] = "DELETED"
            for detail in attachment["details"]:
                if detail["name"] == "networkInterfaceId":
                    try:
                        backend.delete_network_interface(detail["value"])
                    except MOTO_ERRORS:
                        _log.info("the network interface %s of task %s is already gone", detail["value"], self.task.id)
