"""What is otherwise a note can be made a failure, and owners and privileges need not be tried at all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from recovery.dumps.writer import take_backup
from recovery.errors import RecoveryError, UsageError
from recovery.loading.rules import LOSSLESS_KINDS, RULES, STRICT_KINDS, strict_kinds
from recovery.restore import restore

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from recovery.dumps.manifest import Manifest

pytestmark = pytest.mark.slow  # real servers in most tests

# By kind: what a role that is no superuser cannot do, or what does other than it says.
STATEMENTS = {
    "owner": "ALTER TABLE public.t OWNER TO absent;",
    "privileges": "GRANT SELECT ON TABLE public.t TO absent;",
    "setting": "SET no_such_setting_here = 1;",
    "comment": "COMMENT ON EXTENSION plpgsql IS 'x';",
    "not-restored": "CREATE PUBLICATION p FOR ALL TABLES;",
    "exists": "CREATE SCHEMA public;",
    "clean": "DROP TABLE public.absent;",
    "rows": "CREATE TABLE public.r (v int);\nCREATE FUNCTION public.f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN"
    " RETURN NULL; END';\nCREATE TRIGGER g BEFORE INSERT ON public.r FOR EACH ROW EXECUTE FUNCTION public.f();\n"
    "COPY public.r (v) FROM stdin;\n1\n\\.\n",
}
TABLE = "CREATE TABLE public.t (id int);\n"


def write(tmp_path: Path, text: str) -> str:
    path = tmp_path / "dump.sql"
    path.write_text(text)
    return str(path)


def one(dsn: str, text: str) -> Any:
    with psycopg.connect(dsn) as connection:
        row = connection.execute(text.encode()).fetchone()
        return row[0] if row else None


def kinds(result: Any) -> set[str]:
    return {note.kind for note in result.notes if note.kind != "completeness"}  # which plain SQL always has


@pytest.mark.parametrize("kind", STATEMENTS)
def test_a_note_of_a_strict_kind_is_a_failure_that_names_the_rule_and_leaves_the_target_as_it_was(
    kind: str, master_database: str, tmp_path: Path
) -> None:
    source = write(tmp_path, TABLE + STATEMENTS[kind])
    with pytest.raises(RecoveryError, match="line ") as failed:
        restore(source, master_database, strict=[kind])
    assert f"strict {kind}" in f"{failed.value.detail} {failed.value.hint}"
    assert one(master_database, "SELECT to_regclass('public.t') IS NULL")
    others = [other for other in STATEMENTS if other != kind]
    assert kinds(restore(source, master_database, strict=others)) == {kind.replace("-", " ")}


def test_all_means_every_kind_by_which_something_is_lost() -> None:
    assert strict_kinds(["all"]) == set(STRICT_KINDS) - LOSSLESS_KINDS
    assert {rule.kind for rule in RULES} <= set(STRICT_KINDS)
    assert strict_kinds(["not-restored", "rows"]) == {"not restored", "rows"}
    with pytest.raises(UsageError, match="nonsense") as refused:
        strict_kinds(["owner", "nonsense"])
    assert "not-restored" in str(refused.value.hint)


def test_what_an_older_server_does_not_know_is_a_failure_when_that_is_strict(database: str, tmp_path: Path) -> None:
    source = write(tmp_path, TABLE + "GRANT SELECT,MAINTAIN ON TABLE public.t TO postgres;")
    with pytest.raises(RecoveryError, match="does not know the privilege MAINTAIN"):
        restore(source, database, strict=["privileges"])
    assert "privileges" in kinds(restore(source, database))


def test_owners_and_privileges_are_not_tried_when_told_so(database: str, server16: Any, tmp_path: Path) -> None:
    with psycopg.connect(server16.dsn(), autocommit=True) as connection:
        connection.execute("CREATE ROLE left_out_owner")
    source = write(
        tmp_path,
        TABLE + "ALTER TABLE public.t OWNER TO left_out_owner;\nGRANT SELECT ON TABLE public.t TO PUBLIC;\n"
        "ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO PUBLIC;\n"
        "SET SESSION AUTHORIZATION left_out_owner;\nCREATE TABLE public.u ();\n",
    )
    result = restore(source, database, owner=False, privileges=False, strict=["owner", "privileges"])
    owners = "SELECT array_agg(DISTINCT relowner::regrole::text) FROM pg_class WHERE relname IN ('t', 'u')"
    assert one(database, owners) == ["postgres"]
    assert one(database, "SELECT count(*) FROM pg_class WHERE relname = 't' AND relacl IS NOT NULL") == 0
    assert one(database, "SELECT count(*) FROM pg_default_acl") == 0
    assert {(note.kind, note.text) for note in result.notes if note.kind != "completeness"} == {
        ("owner", "left out, as --no-owner says"),
        ("privileges", "left out, as --no-privileges says"),
    }


def backup_of(source: str, tmp_path: Path, collation: str = "C") -> tuple[str, Manifest]:
    with psycopg.connect(source, autocommit=True) as connection:
        connection.execute(f'CREATE TABLE t (x text COLLATE "{collation}")'.encode())
    taken = take_backup(source, local_dir=tmp_path)
    assert taken.manifest is not None
    return str(taken.path), taken.manifest


def sorted_by(manifest: Manifest, changes: dict[str, Any], version: str | None) -> Manifest:
    assert manifest.database_state is not None
    assert manifest.collations is not None
    state = manifest.database_state.model_copy(update=changes)
    collations = tuple(c.model_copy(update={"version": version or c.version}) for c in manifest.collations)
    return manifest.model_copy(update={"database_state": state, "collations": collations}).seal()


def test_a_collation_of_another_version_is_noted_or_a_failure(
    make_database15: Callable[..., str], tmp_path: Path
) -> None:
    path, manifest = backup_of(make_database15(), tmp_path, "de-x-icu")
    other, target = sorted_by(manifest, {}, "0.9"), make_database15()
    with pytest.raises(RecoveryError, match=r"pg_catalog.de-x-icu was 0\.9 .* order of text may differ") as failed:
        restore(path, target, manifest=other, strict=["collation"])
    assert "--strict collation" in str(failed.value.hint)
    assert one(target, "SELECT to_regclass('t') IS NULL")
    (note,) = [note for note in restore(path, target, manifest=other).notes if note.kind == "collation"]
    assert (note.object, note.text[:21]) == ("pg_catalog.de-x-icu", "was 0.9 at the source")
    assert "collation" not in kinds(restore(path, target, manifest=manifest, replace=True, strict=["all"]))


def test_another_default_locale_is_noted_or_a_failure(
    make_database: Callable[..., str], server16: Any, tmp_path: Path
) -> None:
    path, manifest = backup_of(make_database(), tmp_path)
    other, target = sorted_by(manifest, {"collate": "de_DE.UTF-8"}, None), make_database()
    (note,) = [note for note in restore(path, target, manifest=other).notes if note.kind == "collation"]
    assert note.object == "the database's default"
    with pytest.raises(RecoveryError, match="order of text may differ"):
        restore(path, target, manifest=other, replace=True, strict=["collation"])
    # A new database whose locale the server lacks is not even loaded.
    absent = server16.dsn(f"{conninfo_to_dict(target)['dbname']}_new")
    with pytest.raises(RecoveryError, match="the server has no UTF8, de_DE"):
        restore(path, absent, manifest=other, strict=["collation"])


def test_state_of_the_database_that_cannot_be_set_is_a_failure_when_that_is_strict(
    make_database: Callable[..., str], database: str, tmp_path: Path
) -> None:
    path, manifest = backup_of(make_database(), tmp_path)
    other = sorted_by(manifest, {"settings": ("no_such_setting_here=1",)}, None)
    with psycopg.connect(database) as connection:
        connection.execute("CREATE TABLE kept ()")
    with pytest.raises(RecoveryError, match="no_such_setting_here"):
        restore(path, database, manifest=other, replace=True, database_state="source", strict=["database"])
    assert one(database, "SELECT to_regclass('kept') IS NOT NULL")
    restore(path, database, manifest=other, replace=True, database_state="source", strict=["owner"])
