"""How S3's objects differ from moto's: slices, checksums, keys, and locks on what is uploaded in parts."""

from __future__ import annotations

import base64
import hashlib
import zlib
from collections.abc import Callable
from typing import Any

from moto.kms.models import kms_backends
from moto.s3.exceptions import S3ClientError
from moto.s3.models import FakeKey
from moto.s3.utils import compute_checksum

# What S3 knows; the unchecked ones need a compiled library that nothing else here uses.
UNCHECKED = frozenset({"CRC32C", "CRC64NVME"})
CHECKSUMS = ("CRC32", "SHA1", "SHA256", *sorted(UNCHECKED))

_KMS = frozenset({"aws:kms", "aws:kms:dsse"})


class BadDigestError(S3ClientError):
    """Raised when what arrived is not what the client said it sent."""

    code = "BadDigest"

    def __init__(self, kind: str) -> None:
        super().__init__(f"The {kind} you specified did not match the calculated checksum.")


class Slices:
    """An object's content of which only the asked slices are read: a ranged GET costs its range, not the object."""

    def __init__(self, key: FakeKey) -> None:
        self._key = key

    def __len__(self) -> int:
        return int(self._key.contentsize)

    def __getitem__(self, wanted: slice) -> bytes:
        start, stop, _ = wanted.indices(len(self))
        with self._key.lock:
            self._key._value_buffer.seek(start)  # noqa: SLF001  # moto has no door to a part of an object
            return self._key._value_buffer.read(max(stop - start, 0))  # noqa: SLF001  # as above


def _crc32(body: bytes) -> bytes:
    return zlib.crc32(body).to_bytes(4, "big")


def _digest(name: str, body: bytes) -> bytes:
    return hashlib.new(name, body, usedforsecurity=False).digest()


def check_digests(headers: Any, body: bytes) -> None:
    """Raise BadDigestError where a digest in the headers is not the body's. CRC32C and CRC64NVME are not checked."""
    computed: dict[str, tuple[str, Callable[[], bytes]]] = {
        "content-md5": ("Content-MD5", lambda: _digest("md5", body)),
        "x-amz-checksum-crc32": ("CRC32", lambda: _crc32(body)),
        "x-amz-checksum-sha1": ("SHA1", lambda: _digest("sha1", body)),
        "x-amz-checksum-sha256": ("SHA256", lambda: _digest("sha256", body)),
    }
    for header, (kind, compute) in computed.items():
        said = headers.get(header)
        if said and said != base64.b64encode(compute()).decode():
            raise BadDigestError(kind)


def checksum_headers(key: FakeKey) -> dict[str, str]:
    """Return what GET and HEAD say of an object's checksum when asked to."""
    if not key.checksum_algorithm or not key.checksum_value:
        return {}
    composite = key.checksum_type == "COMPOSITE"
    return {
        f"x-amz-checksum-{key.checksum_algorithm.lower()}": (
            f"{key.checksum_value}-{key.checksum_parts}" if composite else str(key.checksum_value)
        ),
        "x-amz-checksum-type": key.checksum_type or "FULL_OBJECT",
    }


def checksum_of_copy(copy: FakeKey) -> None:
    """Give a copy a checksum of its own whole: it is no longer made of parts."""
    if copy.checksum_algorithm and copy.checksum_value:
        copy.checksum_value = compute_checksum(copy.value, copy.checksum_algorithm).decode()
        copy.checksum_type = None
        copy.checksum_parts = None


def key_arn(key: FakeKey, region: str) -> None:
    """Name the KMS key of an encrypted object as S3 does: by its ARN, the AWS managed one where none was named."""
    if key.encryption not in _KMS:
        return
    named = key.kms_key_id or "alias/aws/s3"
    if named.startswith("arn:") and ":key/" in named:
        return
    backend = kms_backends[key.account_id][region]
    alias = backend.get_alias_name(named)
    identifier = backend.get_key_id_from_alias(alias) if alias.startswith("alias/") else named
    if identifier is not None:
        key.kms_key_id = f"arn:aws:kms:{region}:{key.account_id}:key/{identifier}"
