"""Make one replica: the same version, with everything S3 carries over, in another bucket."""

from __future__ import annotations

import copy
import threading
from typing import Any

from moto.s3.models import FakeBucket, FakeDeleteMarker, FakeKey, s3_backends

from localcloud.replication_rules import Rule

# Around every change of a bucket's objects and every listing of them: moto reads, changes and writes back unlocked.
S3_LOCK = threading.RLock()

# Attributes of our own on moto's objects; plain values, because moto copies and pickles its objects.
STATUSES = "localcloud_replication"  # destination ARN -> PENDING, COMPLETED or FAILED
REPLICA = "localcloud_replica"

# What is carried as it is; encryption and storage class follow rules of their own.
_CARRIED = (
    "last_modified",
    "acl",
    "website_redirect_location",
    "checksum_algorithm",
    "checksum_value",
    "checksum_type",
    "checksum_parts",
    "lock_mode",
    "lock_until",
    "lock_legal_status",
)


class CannotReplicateError(Exception):
    """Raised when a replica cannot be made however often it is tried; the object's status becomes FAILED."""


def find_bucket(name: str) -> FakeBucket | None:
    """Return a bucket of any account, or None."""
    place = s3_backends.bucket_accounts.get(name)
    if place is None:
        return None
    partition, account = place
    return s3_backends[account][partition].buckets.get(name)


def find_version(bucket: FakeBucket, key: str, version: str) -> FakeKey | FakeDeleteMarker | None:
    """Return one version of an object, or its delete marker, or None."""
    for candidate in bucket.keys.getlist(key, []):
        if candidate.version_id == version:
            return candidate  # type: ignore[no-any-return]  # moto's store is untyped
    return None


def _destination(rule: Rule) -> FakeBucket:
    bucket = find_bucket(rule.bucket)
    if bucket is None:
        raise CannotReplicateError(f"the destination bucket {rule.bucket} is gone")
    if not bucket.is_versioned:
        raise CannotReplicateError(f"the destination bucket {rule.bucket} is not versioned")
    return bucket


def _backend(bucket: FakeBucket) -> Any:
    return s3_backends[bucket.account_id][bucket.partition]


def copy_version(source: FakeKey, rule: Rule) -> None:
    """Copy an object's version to the rule's destination; again is fine. Raises CannotReplicateError."""
    bucket = _destination(rule)
    if find_version(bucket, source.name, source.version_id) is not None:
        return
    kms = source.encryption in {"aws:kms", "aws:kms:dsse"}
    backend = _backend(bucket)
    value = source.value
    with S3_LOCK:  # nobody sees the replica before it is whole
        replica = backend.put_object(
            bucket.name,
            source.name,
            value,
            storage=rule.storage_class or source.storage_class,
            etag=source.etag.strip('"'),
            multipart=source.multipart,
            # What is encrypted stays so, with the rule's key; else the destination's default applies.
            encryption=source.encryption,
            kms_key_id=rule.replica_key if kms else None,
            disable_notification=True,
        )
        replica._version_id = source.version_id  # noqa: SLF001  # moto makes one up and has no door for another
        setattr(replica, REPLICA, True)
        replica.set_metadata(copy.copy(source.metadata), replace=True)
        for name in _CARRIED:
            setattr(replica, name, getattr(source, name))
        # Tags are kept by ARN, which holds the version: they come after it.
        backend.tagger.copy_tags(source.arn, replica.arn)


def copy_marker(marker: FakeDeleteMarker, rule: Rule) -> None:
    """Copy a delete marker to the rule's destination; again is fine. Raises CannotReplicateError."""
    bucket = _destination(rule)
    if find_version(bucket, marker.name, marker.version_id) is not None:
        return
    replica = FakeDeleteMarker(key=marker.key)
    replica._version_id = marker.version_id  # noqa: SLF001  # as above
    replica.last_modified = marker.last_modified
    with S3_LOCK:
        bucket.keys[marker.name] = replica


def copy_changes(source: FakeKey, rule: Rule) -> None:
    """Carry changed tags, retention and legal hold to the replica, where it still is. Raises CannotReplicateError."""
    bucket = _destination(rule)
    replica = find_version(bucket, source.name, source.version_id)
    if not isinstance(replica, FakeKey):
        return
    tagger = _backend(bucket).tagger
    tagger.delete_all_tags_for_resource(replica.arn)
    tagger.copy_tags(source.arn, replica.arn)
    for name in ("lock_mode", "lock_until", "lock_legal_status", "acl"):
        setattr(replica, name, getattr(source, name))
