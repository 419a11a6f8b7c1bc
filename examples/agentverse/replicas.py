"""Wait until S3 has replicated what production wrote: asked of every object, since a rule alone proves nothing."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import stamina

from examples.agentverse.errors import ExampleError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

    from examples.agentverse.database import Say

_WORKERS = 8


@dataclass(frozen=True, slots=True)
class Place:
    """A bucket and a prefix in it whose objects must have replicas."""

    bucket: str
    prefix: str

    def __str__(self) -> str:
        """Return it as an S3 address."""
        return f"s3://{self.bucket}/{self.prefix}"


class _NotYetError(Exception):
    """Raised while replicas are outstanding, so that the wait goes on."""


def states(s3: S3Client, place: Place) -> dict[str, str]:
    """Return the replication status of each current object: COMPLETED, PENDING, FAILED, REPLICA, or NONE."""
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=place.bucket, Prefix=place.prefix)
    keys = [item["Key"] for page in pages for item in page.get("Contents", ())]
    return _ask(s3, place.bucket, keys)


def wait_for_replicas(s3: S3Client, places: list[Place], *, timeout: float, say: Say) -> dict[str, int]:
    """Wait until every object of these places has its replica; return how many objects each place holds.

    `timeout` is in seconds. Raises ExampleError where a replica failed, where no rule covers an object, or where time
    runs out, each with the first few addresses.
    """
    pending = {place: states(s3, place) for place in places}
    totals = {str(place): len(found) for place, found in pending.items()}
    said = time.monotonic()
    try:
        # A wait of even steps: a replica takes as long as it takes, and nobody else is kept busy by asking.
        for attempt in stamina.retry_context(
            on=_NotYetError, attempts=None, timeout=timeout, wait_initial=0.25, wait_max=2.0, wait_jitter=0.1
        ):
            with attempt:
                _refuse_what_never_will(pending)
                pending = {place: _unfinished(found) for place, found in pending.items()}
                left = sum(len(found) for found in pending.values())
                if time.monotonic() - said >= 1:
                    said = time.monotonic()
                    say(f"{left:,} of {sum(totals.values()):,} objects wait for their replica")
                if left:
                    pending = {place: _ask(s3, place.bucket, list(found)) for place, found in pending.items()}
                    raise _NotYetError  # noqa: TRY301  # what the wait is for
    except _NotYetError:
        left = sum(len(found) for found in pending.values())
        raise ExampleError(
            f"{left:,} objects are not replicated after {timeout:.0f} s",
            detail=_examples(pending, {"PENDING"}),
            hint="look at the replication rules and the embedded cloud's log; a longer --timeout waits longer",
        ) from None
    return totals


def _ask(s3: S3Client, bucket: str, keys: list[str]) -> dict[str, str]:
    def one(key: str) -> str:
        return s3.head_object(Bucket=bucket, Key=key).get("ReplicationStatus", "NONE")

    with ThreadPoolExecutor(_WORKERS, thread_name_prefix="replica") as pool:
        return dict(zip(keys, pool.map(one, keys), strict=True))


def _unfinished(found: dict[str, str]) -> dict[str, str]:
    return {key: state for key, state in found.items() if state not in {"COMPLETED", "REPLICA"}}


def _refuse_what_never_will(pending: dict[Place, dict[str, str]]) -> None:
    for state, fact in (("FAILED", "S3 could not replicate"), ("NONE", "no replication rule covers")):
        number = sum(list(found.values()).count(state) for found in pending.values())
        if number:
            raise ExampleError(
                f"{fact} {number:,} objects",
                detail=_examples(pending, {state}),
                hint="objects written before the rules were there stay without replica: write them again",
            )


def _examples(pending: dict[Place, dict[str, str]], states: set[str]) -> str:
    def addresses() -> Iterator[str]:
        for place, found in pending.items():
            yield from (f"s3://{place.bucket}/{key}" for key, state in found.items() if state in states)

    all_of_them = list(addresses())
    more = f" and {len(all_of_them) - 3:,} more" if len(all_of_them) > 3 else ""
    return ", ".join(all_of_them[:3]) + more
