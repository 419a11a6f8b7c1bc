"""The manifest of a backup: what the dump holds, taken in the dump's own snapshot and sealed by its own digest.

A manifest is JSON.  Its digest is the SHA-256 of the canonical form (keys sorted, no spaces, UTF-8) of everything but
the digest itself.  Fields that a newer version of this tool adds are kept and count into the digest.
"""

from __future__ import annotations

import base64
import datetime as dt  # pydantic reads the annotations when the class is made
import hashlib
import json
from typing import Annotated, Any, Literal

import pydantic

from recovery.errors import BadDumpError

SCHEMA_VERSION = 1

# The largest manifest that is read into memory; 64 MiB describe some 300,000 tables, of any size.
LARGEST_MANIFEST = 64 * 1024 * 1024

Sha256 = Annotated[str, pydantic.StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Filename = Annotated[str, pydantic.StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.\-]*$", max_length=200)]
Count = Annotated[int, pydantic.Field(ge=0)]


class _Part(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(frozen=True, extra="allow", strict=False)


class Table(_Part):
    """One table's data: exact row count and order-independent checksum of its content, as `recovery.dumps.rowsum`.

    `filter` is the condition under which an extension's configuration table is dumped, for people to read.
    """

    schema_name: str = pydantic.Field(alias="schema")
    name: str
    rows: Count
    checksum: str | None = None
    filter: str | None = None

    model_config = pydantic.ConfigDict(frozen=True, extra="allow", populate_by_name=True, serialize_by_alias=True)


class Sequence(_Part):
    """A sequence as the dump's own setval line sets it."""

    schema_name: str = pydantic.Field(alias="schema")
    name: str
    value: int
    is_called: bool

    model_config = pydantic.ConfigDict(frozen=True, extra="allow", populate_by_name=True, serialize_by_alias=True)


class ForeignKey(_Part):
    """A foreign key as it is at the source; `violations` is None where it could not be counted."""

    schema_name: str = pydantic.Field(alias="schema")
    table: str
    name: str
    validated: bool
    violations: Count | None

    model_config = pydantic.ConfigDict(frozen=True, extra="allow", populate_by_name=True, serialize_by_alias=True)


class SchemaObject(_Part):
    """One object: its definition's fingerprint (SHA-256, first 32 hex digits), owner and privileges ("" = default)."""

    kind: str
    identity: str
    fingerprint: str
    owner: str | None = None
    privileges: tuple[str, ...] | None = None


class Extension(_Part):
    """An installed extension."""

    name: str
    version: str
    schema_name: str = pydantic.Field(alias="schema")

    model_config = pydantic.ConfigDict(frozen=True, extra="allow", populate_by_name=True, serialize_by_alias=True)


class Membership(_Part):
    """That a role is a member of `role`, and with which options; servers before 16 have only `admin`."""

    role: str
    admin: bool
    inherit: bool | None
    set_role: bool | None


class Role(_Part):
    """A role of the source's cluster, without its password; `attributes` as in ("LOGIN", "CREATEDB").

    `settings` are those of ALTER ROLE SET for every database, as in "work_mem=64MB".  None in what an older version
    wrote.
    """

    name: str
    attributes: tuple[str, ...]
    member_of: tuple[str, ...]
    memberships: tuple[Membership, ...] | None = None
    settings: tuple[str, ...] | None = None


class Collation(_Part):
    """A collation something depends on and the version of its provider's rules at the source."""

    name: str
    provider: str
    version: str | None


class DatabaseState(_Part):
    """What belongs to the database itself and stands in no dump of it.

    ``icu_rules`` are further rules for sorting by ICU, from PostgreSQL 16 on.
    """

    name: str
    owner: str
    encoding: str
    collate: str | None
    ctype: str | None
    provider: str
    locale: str | None
    collation_version: str | None
    privileges: tuple[str, ...] | None
    settings: tuple[str, ...]
    connection_limit: int
    comment: str | None
    icu_rules: str | None = None


class CopyBlock(_Part):
    """A COPY block's data: `offset` and `length` in uncompressed bytes, from its first row to before its `\\.` line."""

    schema_name: str = pydantic.Field(alias="schema")
    name: str
    columns: tuple[str, ...]
    offset: Count
    length: Count
    rows: Count

    model_config = pydantic.ConfigDict(frozen=True, extra="allow", populate_by_name=True, serialize_by_alias=True)


class Layout(_Part):
    """Where things are in the dump.

    `members` gives (compressed, uncompressed) length of gzip members in order, of a large dump of several together;
    within COPY data a member starts at a row's start, unless a row is longer than a member.  `data_start` and
    `data_end` bound the data in uncompressed bytes: schema before, keys and indexes after.
    """

    uncompressed_size: Count
    members: tuple[tuple[int, int], ...]
    data_start: Count
    data_end: Count
    copy_blocks: tuple[CopyBlock, ...]


class LargeObjectOwner(_Part):
    """How many large objects have one owner and the same privileges, which name the owner `@owner`."""

    owner: str
    privileges: tuple[str, ...]
    count: Count


class LargeObjects(_Part):
    """How many large objects there are, whose, and the checksum of their content; None where it may not be read.

    `owners` is None in what an older version wrote.
    """

    count: Count
    checksum: str | None
    owners: tuple[LargeObjectOwner, ...] | None = None


class Sizes(_Part):
    """Bytes that the tables, with what is stored out of line, and their indexes take at the source."""

    tables: Count
    indexes: Count


class Globals(_Part):
    """The roles and tablespaces that go along, as SQL beside the dump."""

    filename: Filename
    size: Count
    sha256: Sha256
    password_hashes: bool


class Manifest(_Part):
    """What a sealed backup says about itself.  Sizes in bytes, times aware and in UTC."""

    schema_version: Literal[1]
    backup_id: Filename
    filename: Filename
    dump_key: str | None = None
    size: Count
    sha256: Sha256
    object_checksum: str | None = None
    snapshot_time: pydantic.AwareDatetime
    finished_at: pydantic.AwareDatetime
    snapshot_lsn: str | None = None
    newest_commit_time: pydantic.AwareDatetime | None = None
    server_version: str
    pg_dump_version: str
    tool_version: str
    database: str
    system_identifier: str | None = None
    tables: tuple[Table, ...]
    sequences: tuple[Sequence, ...] = ()
    foreign_keys: tuple[ForeignKey, ...] = ()
    objects: tuple[SchemaObject, ...] | None = None
    # By which recipe their definitions were put into words; None is that of older versions.
    objects_recipe: str | None = None
    extensions: tuple[Extension, ...] | None = None
    roles: tuple[Role, ...] | None = None
    collations: tuple[Collation, ...] | None = None
    database_state: DatabaseState | None = None
    large_objects: LargeObjects | None = None
    sizes: Sizes | None = None
    layout: Layout | None = None
    globals: Globals | None = None
    notes: tuple[str, ...] = ()
    digest: str = ""

    @property
    def created_at(self) -> dt.datetime:
        """The recovery point: the moment the dump shows."""
        return self.snapshot_time

    def object_checksums(self) -> set[str]:
        """The checksums S3 may state for this dump: of the whole in one piece, and of the parts it was written in."""
        whole = base64.b64encode(bytes.fromhex(self.sha256)).decode()
        # Some S3-compatible stores leave out the number of parts that ends a composite checksum.
        composite = {self.object_checksum, self.object_checksum.partition("-")[0]} if self.object_checksum else set()
        return {whole} | composite

    def seal(self) -> Manifest:
        """Return this manifest with every field written out and the digest of the whole."""
        # Through JSON once, so that defaults count as set: what is written is then exactly what is digested.
        whole = Manifest.model_validate(self.model_dump(mode="json"))
        return whole.model_copy(update={"digest": _digest(whole.content())})

    def verify_digest(self) -> bool:
        """Tell whether the digest is the one of this content."""
        return bool(self.digest) and self.digest == _digest(self.content())

    def to_bytes(self) -> bytes:
        """The file's content: the canonical JSON, digest included, and a line end."""
        return _canonical({**self.content(), "digest": self.digest}) + b"\n"

    @classmethod
    def from_bytes(cls, data: bytes, *, origin: str = "manifest") -> Manifest:
        """Read and check a manifest; raises BadDumpError when it is none, of a newer form, or its digest is wrong."""
        if len(data) > LARGEST_MANIFEST:
            raise BadDumpError(f"{origin} is larger than any manifest ({len(data)} bytes)")
        try:
            content = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise BadDumpError(f"{origin} is not JSON", detail=str(error)) from error
        if not isinstance(content, dict):
            raise BadDumpError(f"{origin} is not a manifest", detail="its JSON is no object")
        version = content.get("schema_version")
        if version != SCHEMA_VERSION:
            raise BadDumpError(
                f"{origin} has schema version {version!r}; this tool reads {SCHEMA_VERSION}",
                hint="use the version of the tool that wrote the backup, or a newer one",
            )
        digest = content.pop("digest", "")
        # Digested as written, before any model interprets it.
        if digest != _digest(content):
            raise BadDumpError(
                f"{origin} has been changed since it was sealed",
                detail=f"its digest says {digest!r}, its content has {_digest(content)}",
                hint="use another backup, or restore the dump without a manifest and check it by hand",
            )
        try:
            return cls.model_validate({**content, "digest": digest})
        except pydantic.ValidationError as error:
            raise BadDumpError(f"{origin} is not a manifest", detail=_first_problem(error)) from error

    def content(self) -> dict[str, Any]:
        """What the digest covers, as JSON values."""
        return self.model_dump(mode="json", exclude={"digest"}, exclude_unset=True)


def _canonical(content: dict[str, Any]) -> bytes:
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def _digest(content: dict[str, Any]) -> str:
    try:
        return hashlib.sha256(_canonical(content)).hexdigest()
    except UnicodeEncodeError:  # a lone surrogate, which JSON can spell and UTF-8 cannot: no manifest of ours
        return ""


def _first_problem(error: pydantic.ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']} ({error.error_count()} problems in all)"
