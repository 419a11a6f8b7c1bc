"""Finds drills whose environment should be gone and removes it; never touches a failover.

A drill is reaped when its process is dead (its journal is unfinished and nobody holds it), when its teardown did not
end with nothing left, or when its environment has expired. A reaper runs outside the network it destroys.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recovery import drills
from recovery.clients import AwsError, aws_problem, refuse_foreign_account
from recovery.errors import CheckFailedError, RefusedError, UsageError
from recovery.journal import Event, Journal, is_being_written, read_journal
from recovery.procedures.removal import sweep_drill
from recovery.procedures.running import end_blackout
from recovery.processes import end_marked
from recovery.sweep import Sweeper
from recovery.tags import TAG_DRILL, TAG_MODE

if TYPE_CHECKING:
    from recovery.clients import Clients
    from recovery.environment import Environment
    from recovery.local import LocalCloud
    from recovery.settings import Settings

TAG_EXPIRES = "agentverse:expires-at"


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One environment that exists or may exist. `reap` tells whether it should go, `reason` why or why not."""

    drill: str
    reap: bool
    reason: str
    has_stack: bool
    expires_at: datetime | None


def find_candidates(settings: Settings, clients: Clients, now: datetime, *, local: bool) -> list[Candidate]:
    """Return every drill that has a stack, tagged resources, or an unfinished journal here; by id.

    Raises EnvironmentLacksError or RecoveryError when the cloud or the state backend does not answer.
    """
    stacks = {name for name in known_stacks(settings) if drills.ID.match(name)}
    tagged = _tagged(clients)
    unfinished = {
        drill.id
        for drill in drills.list_drills(settings.drills)
        # A drill of the other cloud would be found empty here and be taken for removed.
        if drill.local == local
        and drill.built
        and (drill.state == "dead" or (drill.state == "finished" and not drill.kept and not drill.swept))
    }
    reaped = {name for name in unfinished if _was_reaped(settings, name)}
    # The tagging API goes on naming what is gone: a tag alone counts only when a describe call finds something.
    environment = settings.platform.environment
    confirmed = {
        name
        for name, tags in tagged.items()
        if name in stacks or tags.get(TAG_MODE) != "drill" or Sweeper(clients, name, environment).find()
    }
    ids = sorted(stacks | confirmed | (unfinished - reaped))
    return [_judge(settings, name, stack=name in stacks, tags=tagged.get(name, {}), now=now) for name in ids]


def _judge(settings: Settings, drill_id: str, *, stack: bool, tags: Mapping[str, str], now: datetime) -> Candidate:
    if stack and not tags.get(TAG_EXPIRES):
        tags = {**_stack_tags(settings, drill_id), **tags}
    expires = _time(tags.get(TAG_EXPIRES))
    path = drills.journal_path(settings.drills, drill_id)
    reap, reason = False, ""
    if tags.get(TAG_MODE, "drill") != "drill":
        reason = f"its mode is {tags[TAG_MODE]}: only drills are reaped"
    elif is_being_written(path):
        reason = "it is running"
    elif path.is_file():
        drill = drills.describe(settings.drills, drill_id)
        if drill.state == "dead" and not drill.kept:
            reap, reason = True, "its process is dead"
        elif drill.state == "damaged":
            reason = "its journal is damaged: look at it, then take it down by its id"
        elif not drill.kept:
            reap, reason = True, "something of it is left"
    if not reason and expires is not None and expires < now:
        reap, reason = True, f"it expired at {expires:%Y-%m-%d %H:%M} UTC"
    if not reason:
        until = f" until {expires:%Y-%m-%d %H:%M} UTC" if expires else ""
        reason = f"it is kept{until}" if path.is_file() else f"it may be running on another machine{until}"
    return Candidate(drill=drill_id, reap=reap, reason=reason, has_stack=stack, expires_at=expires)


def remove(
    settings: Settings,
    clients: Clients,
    drill_id: str,
    *,
    account: str,
    local: LocalCloud | None,
    note: Callable[[str], None],
) -> dict[str, object]:
    """Remove everything of one drill and write that into its journal; return what was done.

    Raises RefusedError while the drill runs, or for another account's or a failover's environment; UsageError when
    nothing is known of such a drill; CheckFailedError when something is left.
    """
    refuse_foreign_account(clients, account, settings_file=str(settings.source))
    path = drills.journal_path(settings.drills, drill_id)
    if is_being_written(path):
        raise RefusedError(
            f"Drill {drill_id} is running.", hint="Stop it with Ctrl-C: it tears its own environment down."
        )
    where_it_ran = drills.describe(settings.drills, drill_id).local if path.is_file() else None
    if where_it_ran is not None and where_it_ran != (local is not None):
        where = "the embedded cloud" if local is None else "AWS"
        raise RefusedError(
            f"Drill {drill_id} ran on {where}, so nothing of it can be removed here.",
            hint="Say --local for drills of the embedded cloud, and only for those.",
        )
    if not path.is_file() and not preview(settings, clients, drill_id):
        raise UsageError(
            f"There is no environment of a drill {drill_id} in account {account}, {clients.region}.",
            hint="`recovery environment status` shows those that exist.",
        )
    with Journal(path, drill_id) as journal:
        journal.append("reaping-started", {"account": account})
        # Processes that outlived their drill would go on making what is about to be removed.
        for pid in end_marked(drill_id):
            note(f"ended orphaned process {pid}")
        if local is not None:
            for region in _dark_regions(journal.events):
                end_blackout(journal, local, region)
        environment = _environment(settings, drill_id)
        try:
            count = environment.destroy(account=account, refresh=True, break_lock=True, progress=note)
        except CheckFailedError as exc:
            # What was being created when the drill died is in no state, and what it uses cannot go before it:
            # the sweep finds it in the account itself, removes all, and only then forgets the stack.
            journal.append("destroy-failed", {"message": exc.message, "detail": exc.detail})
            note(f"{exc.message} The sweep removes what is left.")
            count = 0
        swept = sweep_drill(clients, settings, drill_id, environment, note)
        done = {"drill": drill_id, "resources_destroyed": count, **swept}
        journal.append("reaped", done)
        return done


def preview(settings: Settings, clients: Clients, drill_id: str) -> list[str]:
    """Return what removing a drill would delete, one line each; nothing is changed."""
    lines = []
    # Somewhere else than in the drill's folder: looking must not make one.
    with tempfile.TemporaryDirectory(prefix="agentverse-preview-") as folder:
        environment = _environment(settings, drill_id, Path(folder))
        if environment.exists():
            lines = [
                f"{resource['type']} {str(resource.get('urn', '')).rsplit('::', 1)[-1]} {resource.get('id', '')}"
                for resource in environment.resources()
                if resource.get("custom") and not str(resource.get("type", "")).startswith("pulumi:providers:")
            ]
    found = Sweeper(clients, drill_id, settings.platform.environment).find()
    return lines + [item.describe() for item in found]


def known_stacks(settings: Settings) -> list[str]:
    """Return the drill ids of every drill stack in the state backend."""
    with tempfile.TemporaryDirectory(prefix="agentverse-stacks-") as folder:
        return _environment(settings, "", Path(folder)).stacks()


def _environment(settings: Settings, drill_id: str, folder: Path | None = None) -> Environment:
    from recovery.environment import Environment  # noqa: PLC0415  # slow to import: other commands do without

    return Environment(settings.platform, drill_id, folder or settings.drills / drill_id)


def _tagged(clients: Clients) -> dict[str, dict[str, str]]:
    """Return the tags of tagged resources, by drill id."""
    found: dict[str, dict[str, str]] = {}
    try:
        pages = (
            clients("resourcegroupstaggingapi").get_paginator("get_resources").paginate(TagFilters=[{"Key": TAG_DRILL}])
        )
        mappings = [mapping["Tags"] for page in pages for mapping in page["ResourceTagMappingList"]]
        vpcs = clients("ec2").describe_vpcs(Filters=[{"Name": "tag-key", "Values": [TAG_DRILL]}])["Vpcs"]
    except AwsError as exc:
        raise aws_problem(f"Tagged resources in {clients.region} cannot be listed.", exc) from exc
    every: list[Any] = [*mappings, *(vpc.get("Tags", []) for vpc in vpcs)]
    for tags in every:
        flat = {tag["Key"]: tag["Value"] for tag in tags}
        if drills.ID.match(flat.get(TAG_DRILL, "")):
            mode = found.get(flat[TAG_DRILL], {}).get(TAG_MODE, "drill")
            found.setdefault(flat[TAG_DRILL], {}).update(flat)
            if mode != "drill":
                # One resource of a failover makes the whole environment one, whatever its other tags say.
                found[flat[TAG_DRILL]][TAG_MODE] = mode
    return found


def _stack_tags(settings: Settings, drill_id: str) -> dict[str, str]:
    tags: dict[str, str] = {}
    for resource in _environment(settings, drill_id).resources():
        tags.update((resource.get("inputs") or {}).get("tags") or {})
    return tags


def _time(text: str | None) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text) if text else None
    except ValueError:
        return None
    return moment if moment is None or moment.tzinfo else moment.replace(tzinfo=UTC)


def _was_reaped(settings: Settings, drill_id: str) -> bool:
    return any(event.event == "reaped" for event in read_journal(drills.journal_path(settings.drills, drill_id)))


def _dark_regions(events: list[Event]) -> list[str]:
    dark: dict[str, bool] = {}
    for event in events:
        if event.event == "outage-declared" and event.data.get("region"):
            dark[str(event.data["region"])] = True
        elif event.event == "outage-over":
            dark.pop(str(event.data.get("region")), None)
    return list(dark)
