"""The platform's blobs in S3: telemetry/, snapshots/ and exports/, the same for the same seed."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import TYPE_CHECKING

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from examples.agentverse import vocabulary as words
from examples.agentverse.database import Say
from examples.agentverse.errors import EnvironmentLacksError
from examples.agentverse.rows import DEFAULT_UNTIL, Platform

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

PREFIXES = ("telemetry/", "snapshots/", "exports/")
_WORKERS = 8
# Out of ten blobs: what a platform writes all the time, when asked, and now and then.
_KINDS = ("telemetry",) * 7 + ("snapshots",) * 2 + ("exports",)


@dataclass(frozen=True, slots=True)
class Blob:
    """One object: its key, content, media type and user metadata (which carries the content's SHA-256)."""

    key: str
    body: bytes
    media_type: str
    metadata: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class Uploaded:
    """What an upload wrote: objects by prefix, bytes, seconds."""

    objects: dict[str, int]
    size: int
    seconds: float


def client(region: str | None) -> S3Client:
    """Return an S3 client of this region with as many connections as there are workers."""
    return boto3.client("s3", region_name=region, config=Config(max_pool_connections=_WORKERS))


def each_blob(platform: Platform, objects: int) -> Iterator[Blob]:
    """Yield this many blobs, seven of ten telemetry, two snapshots, one export."""
    for index in range(objects):
        kind = _KINDS[index % len(_KINDS)]
        rng = platform.rng("blob", index)
        run = platform.uuid("run", index)
        day = platform.until.replace(day=1 + index % 28)
        if kind == "telemetry":
            records = (
                {"t": n * 250, "run": run, "metric": rng.choice(words.TOOLS), "value": round(rng.gauss(50, 12), 4)}
                for n in range(rng.randrange(20, 120))
            )
            key, media_type = f"telemetry/{day:%Y/%m/%d}/{run}.jsonl", "application/x-ndjson"
            body = "".join(json.dumps(record) + "\n" for record in records).encode()
        elif kind == "snapshots":
            key, media_type = f"snapshots/{run}/world.bin", "application/octet-stream"
            body = b"AVSNAP01" + rng.randbytes(rng.randrange(8_000, 64_000))
        else:
            lines = (f'{n},{rng.randrange(10_000)},"{rng.choice(words.PLACES)}"\n' for n in range(rng.randrange(400)))
            slug = platform.slug(index % platform.projects)
            key, media_type = f"exports/{slug}/events {index}.csv", "text/csv; charset=utf-8"
            body = ("event,tokens,place\n" + "".join(lines)).encode()
        yield Blob(key, body, media_type, {"sha256": hashlib.sha256(body).hexdigest(), "seed": str(platform.seed)})


def upload(s3: S3Client, bucket: str, *, seed: int, objects: int, say: Say) -> Uploaded:
    """Write the blobs of this seed, several at a time; at most two per worker are in memory.

    Raises EnvironmentLacksError at the first blob that the bucket does not take.
    """
    started = said = time.monotonic()
    platform = Platform(seed=seed, projects=max(1, objects // 10), until=DEFAULT_UNTIL)
    written = dict.fromkeys(PREFIXES, 0)
    size = 0

    def put(blob: Blob) -> Blob:
        s3.put_object(Bucket=bucket, Key=blob.key, Body=blob.body, ContentType=blob.media_type, Metadata=blob.metadata)
        return blob

    def collect(done: set[Future[Blob]]) -> None:
        nonlocal size, said
        for future in done:
            blob = future.result()
            written[blob.key.split("/", 1)[0] + "/"] += 1
            size += len(blob.body)
        if time.monotonic() - said >= 1:
            said = time.monotonic()
            say(f"{sum(written.values()):,} of {objects:,} blobs · {size / 1e6:,.1f} MB")

    pending: set[Future[Blob]] = set()
    with ThreadPoolExecutor(_WORKERS, thread_name_prefix="blob") as pool:
        try:
            for blob in each_blob(platform, objects):
                if len(pending) >= 2 * _WORKERS:
                    done, pending = wait(pending, return_when=FIRST_COMPLETED)
                    collect(done)
                pending.add(pool.submit(put, blob))
            collect(wait(pending).done)
        except (BotoCoreError, ClientError) as exc:
            for future in pending:
                future.cancel()
            raise EnvironmentLacksError(
                f"the bucket {bucket} did not take a blob",
                detail=str(exc),
                hint="check that the bucket exists and that the region and credentials are its own",
            ) from exc
    return Uploaded(objects=written, size=size, seconds=time.monotonic() - started)


def count(s3: S3Client, bucket: str) -> dict[str, int]:
    """Return how many current objects are under each of the three prefixes."""
    pages = s3.get_paginator("list_objects_v2")
    return {
        prefix: sum(page.get("KeyCount", 0) for page in pages.paginate(Bucket=bucket, Prefix=prefix))
        for prefix in PREFIXES
    }
