"""S3 replication: what is written to a bucket with rules appears in its destinations, later, and says so."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import xmltodict  # type: ignore[import-untyped]  # it ships no types
from moto.s3.exceptions import ReplicationConfigurationNotFoundError, S3ClientError
from moto.s3.models import FakeBucket, FakeDeleteMarker, FakeKey, S3Backend, s3_backends
from moto.s3.responses import S3Response

from localcloud.layers import Layers
from localcloud.reconciler import Context, Reconciler
from localcloud.replica import (
    REPLICA,
    STATUSES,
    CannotReplicateError,
    copy_changes,
    copy_marker,
    copy_version,
    find_bucket,
    find_version,
)
from localcloud.replication_rules import InvalidReplicationError, Rule, check_rules, parse_rule, winners

_log = logging.getLogger(__name__)


class _VersioningIsNeededError(S3ClientError):
    code = "InvalidBucketState"
    status = 409

    def __init__(self) -> None:
        super().__init__(
            "A replication configuration is present on this bucket, so the versioning state cannot be changed."
        )


@dataclass(frozen=True, kw_only=True)
class _Job:
    """One copy to make. `due` is on the monotonic clock."""

    kind: str  # "version", "marker" or "changes"
    bucket: str
    key: str
    version: str
    rule: Rule
    due: float


@dataclass(frozen=True, kw_only=True)
class _Route:
    """From region to region: jobs of one route are done in the order they came, so versions arrive in order."""

    source: str
    destination: str


def replication_status(key: FakeKey) -> str | None:
    """Return what x-amz-replication-status says of an object: a header S3 leaves out where no rule applies."""
    if getattr(key, REPLICA, False):
        return "REPLICA"
    statuses: dict[str, str] = getattr(key, STATUSES, {})
    if not statuses:
        return None
    return next((status for status in ("PENDING", "FAILED") if status in statuses.values()), "COMPLETED")


class ReplicationReconciler:
    """Watches S3's answers for what was written, and copies it on a thread of its own."""

    name = "s3 replication"

    def __init__(self, context: Context) -> None:
        self._delay = context.replication_delay
        self._layers = Layers()
        self._request = threading.local()
        self._changed = threading.Condition()
        self._copying = threading.RLock()  # held while one job is done: who takes it knows that nothing moves
        self._routes: dict[_Route, deque[_Job]] = {}
        self._dark: frozenset[str] = frozenset()
        self._busy = 0
        self._stopping = False
        self._thread: threading.Thread | None = None

    # --- the reconciler ---

    def install(self) -> None:
        wrap = self._layers.wrap
        wrap(S3Response, "key_response", self._response)
        wrap(S3Response, "bucket_response", self._response)
        wrap(S3Response, "get_bucket_replication", self._get_configuration)
        wrap(S3Backend, "put_bucket_replication", self._put_configuration)
        wrap(S3Backend, "put_bucket_versioning", self._put_versioning)
        wrap(S3Backend, "put_object", self._noting("version"))
        wrap(S3Backend, "_set_delete_marker", self._noting("marker"))
        wrap(S3Backend, "put_object_tagging", self._noting("changes"))
        wrap(S3Backend, "delete_object_tagging", self._noting_version("changes"))
        wrap(S3Backend, "put_object_retention", self._noting_version("changes"))
        wrap(S3Backend, "put_object_legal_hold", self._noting_version("changes"))
        wrap(FakeKey, "response_dict", self._headers)
        self._thread = threading.Thread(target=self._work, name="replication", daemon=True)
        self._thread.start()

    def reset(self) -> None:
        with self._copying, self._changed:
            self._routes.clear()
            self._dark = frozenset()
            self._changed.notify_all()

    def suspend(self, region: str) -> None:
        with self._copying, self._changed:
            self._dark |= {region}

    def resume(self, region: str) -> None:
        with self._changed:
            self._dark -= {region}
            self._changed.notify_all()

    def stop(self) -> None:
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(10.0)
        self._layers.undo()

    def status(self) -> list[dict[str, str]]:
        with self._changed:
            waiting = [(route, len(jobs)) for route, jobs in self._routes.items() if jobs]
            return [
                {
                    "kind": "s3 replication",
                    "name": f"{count} waiting",
                    "region": route.destination,
                    "state": "suspended" if self._is_dark(route) else "copying",
                    "address": f"{route.source} to {route.destination}",
                }
                for route, count in waiting
            ]

    def flush(self, seconds: float = 30.0) -> bool:
        """Wait until nothing is left to copy but what a dark region holds up; return whether it came to that."""
        with self._changed:
            return self._changed.wait_for(
                lambda: not self._busy and all(self._is_dark(r) for r, jobs in self._routes.items() if jobs), seconds
            )

    # --- what was written ---

    def _response(self, inner: Any, response: Any, *arguments: Any) -> Any:
        """Around a whole request: moto sets metadata, tags and ACL after it has stored an object, so act at its end."""
        if getattr(self._request, "events", None) is not None:
            return inner(response, *arguments)
        self._request.events = []
        try:
            answer = inner(response, *arguments)
            written = [
                entry
                for kind, entry in self._request.events
                if self._take(kind, entry) and isinstance(entry, FakeKey) and kind == "version"
            ]
        finally:
            self._request.events = None
        if written and (status := replication_status(written[-1])) is not None:
            answer[1]["x-amz-replication-status"] = status
        return answer

    def _note(self, kind: str, entry: Any) -> None:
        # Only requests are watched: what this part's own worker writes is no event, or replicas would be replicated.
        events = getattr(self._request, "events", None)
        if events is not None:
            events.append((kind, entry))

    def _noting(self, kind: str) -> Callable[..., Any]:
        def layer(inner: Any, *positional: Any, **named: Any) -> Any:
            entry = inner(*positional, **named)
            bucket = positional[1] if kind == "marker" and len(positional) > 1 else named.get("bucket_name")
            if kind == "marker":
                # moto's delete markers do not know their bucket.
                entry.localcloud_bucket = bucket
            self._note(kind, entry)
            return entry

        return layer

    def _noting_version(self, kind: str) -> Callable[..., Any]:
        def layer(inner: Any, backend: Any, bucket_name: str, key_name: str, *rest: Any, **named: Any) -> Any:
            answer = inner(backend, bucket_name, key_name, *rest, **named)
            version = named.get("version_id", rest[0] if rest else None)
            self._note(kind, backend.get_object(bucket_name, key_name, version_id=version))
            return answer

        return layer

    def _take(self, kind: str, entry: Any) -> bool:
        """Queue the copies an event asks for; say whether there are any."""
        if kind == "marker":
            return self._take_marker(entry)
        if not isinstance(entry, FakeKey) or getattr(entry, REPLICA, False):
            return False
        source = find_bucket(str(entry.bucket_name))
        if source is None or not source.is_versioned:
            return False
        rules = _rules(source)
        if kind == "version":
            tags = _tags(entry)
            chosen = winners([rule for rule in rules if rule.covers(entry.name, tags, entry.encryption)])
            setattr(entry, STATUSES, {rule.bucket_arn: "PENDING" for rule in chosen})
        else:
            # Changes follow an object to where it was copied; they do not make one replicate that did not.
            known = getattr(entry, STATUSES, {})
            if any(other == "version" and made is entry for other, made in self._request.events):
                return False
            chosen = winners([rule for rule in rules if rule.enabled and rule.bucket_arn in known])
        for rule in chosen:
            self._queue(kind, source, entry.name, entry.version_id, rule)
        return bool(chosen)

    def _take_marker(self, marker: FakeDeleteMarker) -> bool:
        source = find_bucket(getattr(marker, "localcloud_bucket", ""))
        if source is None or not source.is_versioned:
            return False
        chosen = winners([rule for rule in _rules(source) if rule.covers_marker(marker.name)])
        for rule in chosen:
            self._queue("marker", source, marker.name, marker.version_id, rule)
        return bool(chosen)

    def _queue(self, kind: str, source: FakeBucket, key: str, version: str, rule: Rule) -> None:
        destination = find_bucket(rule.bucket)
        # A destination that is gone has no region any more: the job fails on the source's own.
        route = _Route(
            source=source.region_name,
            destination=destination.region_name if destination is not None else source.region_name,
        )
        job = _Job(
            kind=kind,
            bucket=source.name,
            key=key,
            version=version,
            rule=rule,
            due=time.monotonic() + self._delay,
        )
        with self._changed:
            self._routes.setdefault(route, deque()).append(job)
            self._changed.notify_all()

    # --- the worker ---

    def _is_dark(self, route: _Route) -> bool:
        return bool({route.source, route.destination} & self._dark)

    def _work(self) -> None:
        while True:
            with self._changed:
                route = self._next()
                while route is None and not self._stopping:
                    self._changed.wait(self._until_due())
                    route = self._next()
                if self._stopping:
                    return
                self._busy += 1
            try:
                self._do_first(route)
            finally:
                with self._changed:
                    self._busy -= 1
                    self._changed.notify_all()

    def _next(self) -> _Route | None:
        """Return the route whose first job has been due the longest."""
        now = time.monotonic()
        ready = [
            (jobs[0].due, index, route)
            for index, (route, jobs) in enumerate(self._routes.items())
            if jobs and jobs[0].due <= now and not self._is_dark(route)
        ]
        return min(ready)[2] if ready else None

    def _until_due(self) -> float | None:
        """Return seconds until the next job is due, or None to wait for a change."""
        dues = [jobs[0].due for route, jobs in self._routes.items() if jobs and not self._is_dark(route)]
        return max(min(dues) - time.monotonic(), 0.0) if dues else None

    def _do_first(self, route: _Route | None) -> None:
        with self._copying:
            with self._changed:
                jobs = self._routes.get(route) if route is not None else None
                # A region may have gone dark, or everything been forgotten, since the job was chosen.
                if route is None or not jobs or self._is_dark(route):
                    return
                job = jobs.popleft()
            try:
                self._do(job)
            except CannotReplicateError as exc:
                _log.info("%s/%s is not replicated: %s", job.bucket, job.key, exc)
                self._set_status(job, "FAILED")
            except Exception:  # noqa: BLE001  # the worker's edge: one object must not stop all others
                _log.exception("%s/%s is not replicated", job.bucket, job.key)
                self._set_status(job, "FAILED")

    def _do(self, job: _Job) -> None:
        entry = self._source(job)
        if isinstance(entry, FakeDeleteMarker):
            copy_marker(entry, job.rule)
        elif isinstance(entry, FakeKey) and job.kind == "version":
            copy_version(entry, job.rule)
        elif isinstance(entry, FakeKey):
            copy_changes(entry, job.rule)
        self._set_status(job, "COMPLETED")

    def _source(self, job: _Job) -> FakeKey | FakeDeleteMarker | None:
        bucket = find_bucket(job.bucket)
        return None if bucket is None else find_version(bucket, job.key, job.version)

    def _set_status(self, job: _Job, status: str) -> None:
        entry = self._source(job)
        if isinstance(entry, FakeKey) and job.kind == "version":
            getattr(entry, STATUSES)[job.rule.bucket_arn] = status

    # --- answers ---

    def _headers(self, inner: Any, key: FakeKey) -> dict[str, Any]:
        headers: dict[str, Any] = inner(key)
        status = replication_status(key)
        return headers if status is None else {**headers, "x-amz-replication-status": status}

    def _put_configuration(self, inner: Any, backend: Any, bucket_name: str, replication: dict[str, Any]) -> None:
        raw = replication.get("Rule")
        raw_rules: list[dict[str, Any]] = raw if isinstance(raw, list) else [raw] if raw else []
        given_priorities = [rule.get("Priority") for rule in raw_rules]
        for rule in check_rules(raw_rules):
            destination = find_bucket(rule.bucket)
            if destination is None:
                raise InvalidReplicationError("Destination bucket must exist.")
            if rule.bucket == bucket_name:
                raise InvalidReplicationError("Destination bucket cannot be the same as the source bucket.")
            if not destination.is_versioned:
                raise InvalidReplicationError("Destination bucket must have versioning enabled.")
        inner(backend, bucket_name, replication)
        # moto gives every rule a priority, which a rule of the first schema does not have.
        for stored, priority in zip(replication["Rule"], given_priorities, strict=True):
            if priority is None:
                stored.pop("Priority", None)

    def _put_versioning(self, inner: Any, backend: Any, bucket_name: str, status: str) -> None:
        if status != "Enabled" and _rules(backend.get_bucket(bucket_name)):
            raise _VersioningIsNeededError
        inner(backend, bucket_name, status)

    def _get_configuration(self, inner: Any, response: Any) -> Any:
        del inner  # moto's answer leaves out most of what was put
        stored = response.backend.get_bucket_replication(response.bucket_name)
        if not stored:
            raise ReplicationConfigurationNotFoundError(bucket_name=response.bucket_name)
        return 200, {}, xmltodict.unparse({"ReplicationConfiguration": stored})


def _rules(bucket: FakeBucket) -> list[Rule]:
    stored = getattr(bucket, "replication", None)
    return [parse_rule(raw) for raw in stored["Rule"]] if stored else []


def _tags(key: FakeKey) -> dict[str, str]:
    found: dict[str, str] = s3_backends[key.account_id][key.partition].tagger.get_tag_dict_for_resource(key.arn)
    return found


def reconciler(context: Context) -> Reconciler:
    """Return the part of the cloud that replicates objects."""
    return ReplicationReconciler(context)
