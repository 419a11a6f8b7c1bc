"""The only door to Pulumi: bring a drill's environment up, read its outputs, destroy it, refuse what is not a drill's.

A drill's stack is `dr-<drill id>`. It is set up from a copy of the project file and Pulumi.dr.yaml in the drill's own
folder, so that nothing ever writes to the committed ones. Pulumi runs in a process group of its own: a Ctrl-C reaches
it once, through here, and not behind the runner's back.
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pulumi import automation
from pulumi.automation import errors as automation_errors
from semver import VersionInfo

from recovery.errors import CheckFailedError, EnvironmentLacksError, RecoveryError, RefusedError, RunInterruptedError
from recovery.outputs import Outputs, read_outputs
from recovery.processes import MARK, end_marked
from recovery.pulumi_cli import find_pulumi
from recovery.tags import TAG_DRILL, TAG_MODE

if TYPE_CHECKING:
    from datetime import datetime

    from recovery.settings import Platform

STACK_PREFIX = "dr-"
_NAMESPACE = "agentverse-dr"


@dataclass(frozen=True, kw_only=True)
class Resource:
    """One resource the engine speaks of: its Pulumi type, its name in the program, and whether it is made already."""

    type: str
    name: str
    made: bool


OnResource = Callable[[Resource], None]


class _Command(automation.PulumiCommand):
    """The SDK's command runner, with processes that can be interrupted and killed from another thread."""

    def __init__(self, program: Path, drill_id: str) -> None:
        # The parent's constructor starts the CLI only to ask its version, which set-up has pinned already.
        self.command = str(program)
        self.version = VersionInfo.parse(metadata.version("pulumi"))
        self._drill_id = drill_id
        self._mutex = threading.Lock()
        self._running: set[subprocess.Popen[str]] = set()

    def run(
        self,
        args: list[str],
        cwd: str,
        additional_env: Mapping[str, str],
        on_output: Callable[[str], Any] | None = None,
        on_error: Callable[[str], Any] | None = None,
    ) -> automation.CommandResult:
        """Run one CLI command as the SDK does, in a session of its own. Raises the SDK's CommandError."""
        env = {**os.environ, **additional_env, "PULUMI_AUTOMATION_API": "true", MARK: self._drill_id}
        env["PATH"] = os.pathsep.join([str(Path(self.command).parent), env.get("PATH", os.defpath)])
        output: dict[str, list[str]] = {"stdout": [], "stderr": []}
        with subprocess.Popen(
            [self.command, "--non-interactive", *args],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=cwd,
            env=env,
            encoding="utf-8",
            start_new_session=True,
        ) as process:
            with self._mutex:
                self._running.add(process)
            readers = [
                threading.Thread(target=_collect, args=(process.stdout, output["stdout"], on_output), daemon=True),
                threading.Thread(target=_collect, args=(process.stderr, output["stderr"], on_error), daemon=True),
            ]
            for reader in readers:
                reader.start()
            for reader in readers:
                reader.join()
            code = process.wait()
            with self._mutex:
                self._running.discard(process)
        result = automation.CommandResult(
            stdout="\n".join(output["stdout"]), stderr="\n".join(output["stderr"]), code=code
        )
        if code != 0:
            raise automation_errors.create_command_error(result)
        return result

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process group of every command that runs."""
        with self._mutex:
            running = list(self._running)
        for process in running:
            try:
                os.killpg(process.pid, number)
            except ProcessLookupError:
                continue


def _collect(stream: Any, lines: list[str], callback: Callable[[str], Any] | None) -> None:
    for line in iter(stream.readline, ""):
        lines.append(line.rstrip())
        if callback is not None:
            callback(line.rstrip())
    stream.close()


class Environment:
    """One drill's stack. Nothing is called before a method is."""

    def __init__(self, platform: Platform, drill_id: str, folder: Path) -> None:
        """Name the environment of `drill_id`; its project copy lives in `folder`/stack."""
        self.drill_id = drill_id
        self.stack_name = f"{STACK_PREFIX}{drill_id}"
        self._platform = platform
        self._work = folder / "stack"
        self._command: _Command | None = None

    # --- set-up

    def _workspace(self, config: Mapping[str, str] | None = None) -> automation.LocalWorkspace:
        if not os.environ.get("PULUMI_BACKEND_URL"):
            raise EnvironmentLacksError(
                "PULUMI_BACKEND_URL is not set, so there is nowhere to keep the stack's state.",
                hint=f"Set it to a bucket in {self._platform.dr_region}, such as s3://NAME?region="
                f"{self._platform.dr_region}, with PULUMI_CONFIG_PASSPHRASE; --local sets its own.",
            )
        if self._command is None:
            self._command = _Command(find_pulumi(), self.drill_id)
        self._copy_project(config)
        region = self._platform.dr_region
        return automation.LocalWorkspace(
            work_dir=str(self._work),
            pulumi_command=self._command,
            # Whatever the operator's shell says, a drill must not lean on the region that is lost.
            env_vars={"AWS_REGION": region, "AWS_DEFAULT_REGION": region, "PULUMI_SKIP_UPDATE_CHECK": "1"},
        )

    def _copy_project(self, config: Mapping[str, str] | None) -> None:
        project = self._platform.project
        # PyYAML comes with Pulumi and has no types; what is read here is a plain mapping.
        yaml: Any = importlib.import_module("yaml")
        try:
            document = yaml.safe_load((project / "Pulumi.yaml").read_text(encoding="utf-8"))
            stack = yaml.safe_load((project / "Pulumi.dr.yaml").read_text(encoding="utf-8")) or {}
        except OSError as exc:
            raise EnvironmentLacksError(
                f"The Pulumi project in {project} cannot be read.",
                detail=str(exc),
                hint="platform.project in recovery.toml names the folder of Pulumi.yaml and Pulumi.dr.yaml.",
            ) from exc
        document["main"] = str((project / document.get("main", ".")).resolve())
        runtime = document.get("runtime")
        options = runtime.get("options") if isinstance(runtime, dict) else None
        if isinstance(options, dict) and options.get("virtualenv"):
            options["virtualenv"] = str(project / options["virtualenv"])
        settings = stack.setdefault("config", {})
        if not any(isinstance(value, dict) and "secure" in value for value in settings.values()):
            # Left by somebody who selected a stack by hand, perhaps on another backend with another passphrase; without
            # an encrypted value nothing needs it, and with it this stack could not be opened.
            stack.pop("encryptionsalt", None)
        settings.update(config or {})
        self._work.mkdir(parents=True, exist_ok=True)
        stack_file = self._work / f"Pulumi.{self.stack_name}.yaml"
        (self._work / "Pulumi.yaml").write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
        # An existing copy holds the stack's encryption salt: it is written again only when the stack is set up.
        if config is not None or not stack_file.exists():
            stack_file.write_text(yaml.safe_dump(stack, sort_keys=False), encoding="utf-8")

    def _config(self, mode: str, expires_at: datetime, owner: str, image: str) -> dict[str, str]:
        platform = self._platform
        values = {
            "program": "dr",
            "environment": platform.environment,
            "primaryRegion": platform.primary_region,
            "drRegion": platform.dr_region,
            "primaryBucket": platform.primary_bucket,
            "backupsBucket": platform.backups_bucket,
            "drBackupsBucket": platform.dr_backups_bucket,
            "evidenceBucket": platform.evidence_bucket,
            "drillId": self.drill_id,
            "mode": mode,
            "expiresAt": expires_at.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "owner": owner,
        }
        if image:
            values["recoveryImage"] = image
        return {"aws:region": platform.dr_region, **{f"{_NAMESPACE}:{key}": value for key, value in values.items()}}

    # --- up

    def up(
        self,
        *,
        expires_at: datetime,
        owner: str,
        image: str,
        on_resource: OnResource,
        cancelled: threading.Event,
    ) -> Outputs:
        """Make the environment and return its outputs; `on_resource` hears of each resource begun and made.

        Raises RunInterruptedError when `cancelled` is set meanwhile, CheckFailedError when the stack cannot be made,
        EnvironmentLacksError without a CLI or a state backend.
        """
        workspace = self._workspace(self._config("drill", expires_at, owner, image))
        complaints: list[str] = []

        def hear(event: automation.EngineEvent) -> None:
            for news in (event.resource_pre_event, event.res_outputs_event):
                if news is not None:
                    about, new = news.metadata, news.metadata.new
                    made = news is event.res_outputs_event and new is not None and bool(new.id)
                    on_resource(Resource(type=about.type, name=about.urn.rsplit("::", 1)[-1], made=made))
            diagnostic = event.diagnostic_event
            if diagnostic is not None and diagnostic.severity == "error":
                complaints.append(diagnostic.message.strip())

        with self._interruptible(cancelled), _translated(f"Stack {self.stack_name} could not be made.", complaints):
            stack = automation.Stack.create_or_select(self.stack_name, workspace)
            result = stack.up(on_event=hear, color="never", show_secrets=False, suppress_outputs=True)
            return read_outputs({key: output.value for key, output in result.outputs.items()})

    @contextmanager
    def _interruptible(self, cancelled: threading.Event) -> Iterator[None]:
        over = threading.Event()

        def watch() -> None:
            while not over.is_set():
                if cancelled.wait(0.2):
                    if self._command is not None and not over.is_set():
                        self._command.signal(signal.SIGINT)
                    return

        watcher = threading.Thread(target=watch, name="pulumi-interrupt", daemon=True)
        watcher.start()
        try:
            yield
        except RecoveryError as exc:
            if cancelled.is_set():
                raise RunInterruptedError("Pulumi was interrupted.", detail=exc.message) from exc
            raise
        finally:
            over.set()
        if cancelled.is_set():
            raise RunInterruptedError("Pulumi was interrupted.")

    # --- looking

    def exists(self) -> bool:
        """Tell whether the state backend knows this drill's stack."""
        return self.stack_name in {name for name, _ in list_stacks(self._workspace())}

    def outputs(self) -> Outputs:
        """Return the outputs of a complete stack. Raises CheckFailedError when there is none or it is not complete."""
        with _translated(f"The outputs of stack {self.stack_name} cannot be read.", []):
            stack = automation.Stack.select(self.stack_name, self._workspace())
            return read_outputs({key: output.value for key, output in stack.outputs().items()})

    def stacks(self) -> list[str]:
        """Return the drill ids of every drill stack in the state backend, the hand-made `dr` left out."""
        names = [name for name, _ in list_stacks(self._workspace())]
        return sorted(name.removeprefix(STACK_PREFIX) for name in names if name.startswith(STACK_PREFIX))

    def resources(self) -> list[dict[str, Any]]:
        """Return the resources in the stack's state as Pulumi records them, secrets left encrypted."""
        workspace = self._workspace()
        with _translated(f"The state of stack {self.stack_name} cannot be read.", []):
            result = workspace.pulumi_command.run(
                ["stack", "export", "--stack", self.stack_name], str(self._work), workspace.env_vars
            )
        deployment = json.loads(result.stdout).get("deployment") or {}
        return list(deployment.get("resources") or [])

    # --- down

    def destroy(
        self, *, account: str, refresh: bool = False, break_lock: bool = False, progress: Callable[[str], None]
    ) -> int:
        """Destroy the stack after checking that all of it is this drill's; return how many resources it had.

        `break_lock` removes the lock of a Pulumi process known to be dead. A stack that does not exist is 0.
        Raises RefusedError for another account's, another drill's or a failover's stack, CheckFailedError when
        something could not be deleted.
        """
        if not self.exists():
            return 0
        workspace = self._workspace()
        resources = self.resources()
        refuse_foreign_resources(resources, self.drill_id, account=account, region=self._platform.dr_region)
        complaints: list[str] = []

        def hear(event: automation.EngineEvent) -> None:
            if event.diagnostic_event is not None and event.diagnostic_event.severity == "error":
                complaints.append(event.diagnostic_event.message.strip())
            if event.res_outputs_event is not None:
                progress(f"deleted {event.res_outputs_event.metadata.urn.rsplit('::', 1)[-1]}")

        with _translated(f"Stack {self.stack_name} could not be destroyed.", complaints):
            stack = automation.Stack.select(self.stack_name, workspace)
            if break_lock:
                # Without a lock there is nothing to cancel, which Pulumi reports as a failure.
                with suppress(automation_errors.CommandError):
                    stack.cancel()
            stack.destroy(on_event=hear, color="never", refresh=refresh or None, run_program=False, show_secrets=False)
        return sum(1 for resource in resources if resource.get("custom"))

    def forget(self) -> None:
        """Remove the stack from the state backend, and its project copy; to be called once nothing is left of it."""
        if self.exists():
            with _translated(f"Stack {self.stack_name} could not be removed from the state.", []):
                self._workspace().remove_stack(self.stack_name, force=True)
        shutil.rmtree(self._work, ignore_errors=True)

    def kill(self) -> None:
        """Kill every Pulumi process of this environment at once; its stack keeps a lock that a reaper removes."""
        end_marked(self.drill_id)


def list_stacks(workspace: automation.LocalWorkspace) -> list[tuple[str, bool]]:
    """Return name and whether an update is in progress, of every stack of the project."""
    with _translated("The Pulumi state backend does not answer.", []):
        return [(stack.name, bool(stack.update_in_progress)) for stack in workspace.list_stacks()]


def refuse_foreign_resources(resources: list[dict[str, Any]], drill_id: str, *, account: str, region: str) -> None:
    """Raise RefusedError unless the recorded resources are this drill's, in this account and region."""
    for resource in resources:
        outputs, inputs = resource.get("outputs") or {}, resource.get("inputs") or {}
        name = str(resource.get("urn", "")).rsplit("::", 1)[-1]
        if resource.get("type") == "pulumi:pulumi:Stack":
            for key, ours, what in (("account", account, "account"), ("region", region, "region")):
                if outputs.get(key) not in {None, ours}:
                    raise RefusedError(
                        f"The stack of drill {drill_id} is in {what} {outputs[key]}, the platform's is {ours}.",
                        hint="Nothing was destroyed. Use the credentials and settings it was made with.",
                    )
            continue
        tags = {**(inputs.get("tags") or {}), **(outputs.get("tagsAll") or {}), **(outputs.get("tags") or {})}
        if not resource.get("custom") or not ("tags" in inputs or "tags" in outputs):
            continue
        if tags.get(TAG_DRILL) != drill_id or tags.get(TAG_MODE) != "drill":
            raise RefusedError(
                f"Resource {name} of this stack does not carry the tags of drill {drill_id}.",
                detail=f"{TAG_DRILL} is {tags.get(TAG_DRILL)!r}, {TAG_MODE} is {tags.get(TAG_MODE)!r}.",
                hint="Nothing was destroyed: only what a drill made is torn down here, never a failover.",
            )


@contextmanager
def _translated(what: str, complaints: list[str]) -> Iterator[None]:
    """Turn the SDK's errors into ours, with the engine's own complaints as the evidence."""
    try:
        yield
    except automation_errors.ConcurrentUpdateError as exc:
        raise CheckFailedError(
            what,
            detail="Another Pulumi process holds this stack.",
            hint="If that process is dead, `recovery environment reap` removes its lock.",
        ) from exc
    except automation_errors.CommandError as exc:
        said = [line for line in str(exc).splitlines() if line.strip().startswith("error:")]
        detail = "\n".join(dict.fromkeys(complaints)) or "\n".join(said) or str(exc)
        raise CheckFailedError(what, detail=detail.strip()[-4000:]) from exc
    except OSError as exc:
        raise EnvironmentLacksError(what, detail=str(exc), hint="Run `make setup`.") from exc
