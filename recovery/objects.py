"""Proof that the replicated objects are in the DR region: how many, how large, how new, and that they are replicas."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from heapq import nlargest
from typing import TYPE_CHECKING, Any

from recovery.clients import AwsError, aws_problem

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mypy_boto3_s3.client import S3Client

# Statuses need one call per object: the newest are asked, since they are the ones that may be missing or pending.
_SAMPLE = 200


@dataclass(frozen=True, kw_only=True)
class PrefixProof:
    """What is under one prefix. `statuses` counts x-amz-replication-status over the `sampled` newest objects."""

    prefix: str
    count: int
    bytes: int
    newest: datetime | None
    sampled: int
    statuses: Mapping[str, int]


def prove_prefix(s3: S3Client, bucket: str, prefix: str) -> PrefixProof:
    """List a prefix and ask its newest objects for their replication status; reads nothing from any other region.

    Raises RecoveryError or EnvironmentLacksError when the bucket does not answer.
    """
    count = size = 0
    newest: list[tuple[datetime, str]] = []
    try:
        for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
            contents: list[Any] = list(page.get("Contents", []))
            count += len(contents)
            size += sum(item["Size"] for item in contents)
            newest = nlargest(_SAMPLE, [*newest, *((item["LastModified"], item["Key"]) for item in contents)])

        def status(key: str) -> str:
            return str(s3.head_object(Bucket=bucket, Key=key).get("ReplicationStatus", "none"))

        with ThreadPoolExecutor(max_workers=8) as pool:
            statuses = Counter(pool.map(status, [key for _, key in newest]))
    except AwsError as exc:
        raise aws_problem(f"s3://{bucket}/{prefix} cannot be read.", exc) from exc
    return PrefixProof(
        prefix=prefix,
        count=count,
        bytes=size,
        newest=newest[0][0] if newest else None,
        sampled=len(newest),
        statuses=dict(statuses),
    )
