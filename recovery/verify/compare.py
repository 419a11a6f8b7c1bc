"""Compares what was found in a database with what a reference says: plain functions from facts to (outcome, reason,
evidence).
"""

from __future__ import annotations

import collections
import itertools
from typing import TYPE_CHECKING, Any

from recovery.dumps import large_objects, objects_sql
from recovery.dumps.created import created_as
from recovery.dumps.rowsum import RECIPE
from recovery.verify.result import Outcome
from recovery.verify.sequences import at_or_past

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from collections.abc import Set as AbstractSet

    from recovery.dumps.foreign_keys import Key
    from recovery.dumps.manifest import Extension, LargeObjectOwner, LargeObjects, SchemaObject
    from recovery.dumps.rowsum import Content
    from recovery.verify.reference import Reference

Answer = tuple[Outcome, str, dict[str, Any]]
Name = tuple[str, str]

_MOST = 20  # names listed in evidence; the counts are always whole

_DEFAULTS = "default privileges"  # a matter of roles, compared with the grants

# Kinds whose definition is text that a newer server may spell differently for the same thing.
_SPELLED = frozenset(
    {"view", "materialized view", "rule", "trigger", "table constraint", "domain constraint", "index", "policy",
     "function", "procedure", "aggregate", "statistics object", "default value", "collation"}
)  # fmt: skip


def schema(
    original: Reference,
    found: tuple[SchemaObject, ...],
    extensions: tuple[Extension, ...],
    tables: set[Name],
    major: int,
) -> Answer:
    """Every object of the original is there with the same definition, and no table more."""
    if original.tables is None:
        return Outcome.NOT_RUN, f"{len(found)} objects, and nothing to compare them with", {"objects": len(found)}
    versions, of_extensions, extension_problems = _extensions(original, extensions)
    if original.objects is None:
        outcome, reason, evidence = _names(original, found, tables, extension_problems)
    else:
        outcome, reason, evidence = _definitions(original, original.objects, found, extension_problems, major)
    return outcome, reason + (versions if outcome is Outcome.PASS else ""), {**evidence, **of_extensions}


def _extensions(
    original: Reference, found: tuple[Extension, ...]
) -> tuple[str, dict[str, Any], list[tuple[list[str], str]]]:
    """Return (what to say of other versions, evidence, what is wrong)."""
    here = {e.name: e for e in found}
    known = original.extensions or {}
    lost = sorted(known.keys() - here.keys())
    moved = {
        name: [schema, here[name].schema_name]
        for name, (schema, _) in sorted(known.items())
        if name in here and schema is not None and here[name].schema_name != schema
    }
    versions = {
        name: [version, here[name].version]
        for name, (_, version) in sorted(known.items())
        if name in here and version is not None and here[name].version != version
    }
    evidence = {"missing_extensions": lost, "moved_extensions": moved, "extension_versions": versions}
    named = ", ".join(f"{name} was {was}, is {now}" for name, (was, now) in versions.items())
    problems = [(lost, "extensions missing"), (sorted(moved), "extensions in another schema")]
    return f"; extensions of other versions: {named}" if named else "", evidence, problems


def _names(
    original: Reference,
    found: tuple[SchemaObject, ...],
    tables: set[Name],
    extension_problems: list[tuple[list[str], str]],
) -> Answer:
    """What the dump's text creates is there, whatever its definition."""
    wanted = (original.tables or {}).keys() | original.uncounted
    missing_tables = sorted(".".join(name) for name in wanted - tables)
    created = original.created or frozenset()
    missing = sorted(map(str, created - {created_as(each.kind, each.identity) for each in found}))
    evidence: dict[str, Any] = {
        "tables": len(wanted),
        "objects": len(created),
        "missing": [*missing_tables, *missing][:_MOST],
    }
    problems = [
        *([f"{len(missing_tables)} of {len(wanted)} tables are missing"] if missing_tables else []),
        *([f"{len(missing)} of {len(created)} other objects are missing"] if missing else []),
        *(f"{len(names)} {what}" for names, what in extension_problems if names),
    ]
    if problems:
        return Outcome.FAIL, ", ".join(problems), evidence
    others = f", and {len(created)} other objects by their names" if created else ""
    return Outcome.PASS, f"all {len(wanted)} tables of the dump are there{others}", evidence


def _definitions(
    original: Reference,
    objects: tuple[SchemaObject, ...],
    found: tuple[SchemaObject, ...],
    extension_problems: list[tuple[list[str], str]],
    major: int,
) -> Answer:
    then = {(o.kind, o.identity): o.fingerprint for o in objects if o.kind != _DEFAULTS}
    now = {(o.kind, o.identity): o.fingerprint for o in found if o.kind != _DEFAULTS}
    comparable = original.objects_recipe == objects_sql.RECIPE
    missing = [" ".join(key) for key in sorted(then.keys() - now.keys())]
    # What another version knew nothing of is not more than there should be.
    extra = [" ".join(key) for key in sorted(now.keys() - then.keys()) if comparable]
    same_major = original.major == major
    changed = [
        " ".join(key)
        for key in sorted(then.keys() & now.keys())
        if comparable and then[key] != now[key] and (same_major or key[0] not in _SPELLED)
    ]
    evidence: dict[str, Any] = {
        "objects": len(then),
        "missing": missing[:_MOST],
        "extra": extra[:_MOST],
        "changed": changed[:_MOST],
    }
    problems = [
        f"{len(names)} {what}"
        for names, what in (
            (missing, "missing"),
            (extra, "more than there should be"),
            (changed, "defined otherwise"),
            *extension_problems,
        )
        if names
    ]
    if problems:
        return Outcome.FAIL, f"of {len(then)} objects: {', '.join(problems)}", evidence
    if not comparable:
        reason = (
            f"all {len(then)} objects are there; their definitions were not compared, since another version of this"
            f" tool put them into words ({original.objects_recipe or 'before they had a name'})"
        )
        return Outcome.NOT_RUN, reason, evidence
    if same_major:
        return Outcome.PASS, f"all {len(then)} objects are defined as in the original", evidence
    return (
        Outcome.PASS,
        f"all {len(then)} objects are there; definitions that another major version words otherwise were not compared",
        evidence,
    )


def grants(
    original: Reference,
    found: tuple[SchemaObject, ...],
    blobs: tuple[LargeObjectOwner, ...],
    roles: set[str],
    assumable: set[str],
) -> Answer:
    """Owners and privileges are the original's, but for what the asking role could not have given back.

    `roles` are those of the server, `assumable` those the role may act as: only to these can it give an object.
    """
    if original.objects is None:
        return Outcome.NOT_RUN, "only a manifest tells owners and privileges", {}
    wrong: list[str] = []
    beyond: dict[str, int] = {}
    for role, count, what in itertools.chain(
        _lost_of_objects(original, {(o.kind, o.identity): o for o in found}, roles, assumable),
        _lost_of_large_objects(original, blobs, roles, assumable),
    ):
        if role is None:
            wrong.append(what)
        else:
            beyond[role] = beyond.get(role, 0) + count
    evidence = {"differences": wrong[:_MOST], "beyond_this_role": beyond}
    if wrong:
        return Outcome.FAIL, f"{len(wrong)} owners or privileges differ", evidence
    if beyond:
        names = ", ".join(sorted(beyond)[:5])
        reason = f"they are, but for {sum(beyond.values())} of roles that are absent or not this role's to use: {names}"
        return Outcome.PASS, reason, evidence
    return Outcome.PASS, "owners and privileges are the original's", evidence


_Lost = tuple[str | None, int, str]


def _lost_of_objects(
    original: Reference, now: Mapping[tuple[str, str], SchemaObject], roles: set[str], assumable: set[str]
) -> Iterator[_Lost]:
    """Yield owners and privileges that are not what they were: of how many objects, and in words which.

    First comes the role that the asking one cannot give or grant anything to, or None.
    """
    comparable = original.objects_recipe == objects_sql.RECIPE
    for then in original.objects or ():
        here = now.get((then.kind, then.identity))
        title = f"{then.kind} {then.identity}"
        if then.owner is not None and then.owner not in assumable and (here is None or here.owner != then.owner):
            yield then.owner, 1, title
        elif then.kind == _DEFAULTS and (here is None or (comparable and here.fingerprint != then.fingerprint)):
            yield None, 1, f"{title}: not what they were"
        elif here is not None and then.owner != here.owner:
            yield None, 1, f"{title}: owned by {here.owner}, was {then.owner}"
        if here is None:
            continue  # the schema's rung says so
        before, after = _privileges(then), _privileges(here)
        for grant in sorted(before - after):
            role = grant.partition("=")[0].partition("(")[0]
            is_known = role in roles or role in ("public", "@owner")
            yield None if is_known else role, 1, f"{title}: {grant} is gone"
        for grant in sorted(after - before):
            yield None, 1, f"{title}: {grant} was not there"


def _lost_of_large_objects(
    original: Reference, found: tuple[LargeObjectOwner, ...], roles: set[str], assumable: set[str]
) -> Iterator[_Lost]:
    """Yield the same of large objects, many at a time."""
    before = original.large_objects.owners if original.large_objects is not None else None
    then, now = (
        collections.Counter({(each.owner, each.privileges): each.count for each in groups})
        for groups in (before or (), found)
    )
    for (owner, privileges), count in sorted((then - now).items()):
        grantees = {grant.partition("=")[0] for grant in privileges} - roles - {"public", "@owner"}
        beyond = {owner} - assumable or grantees
        what = f"{count} large objects: no longer owned by {owner} with {' '.join(privileges)}"
        yield min(beyond, default=None), count, what


def rows(
    expected: Mapping[Name, Content],
    found: Mapping[Name, Content],
    uncounted: frozenset[Name] = frozenset(),
) -> Answer:
    """Exact counts, table by table; nothing is expected of the number of rows in tables that are `uncounted`."""
    different = {
        ".".join(name): {"expected": _rows(expected.get(name)), "found": _rows(found.get(name))}
        for name in sorted((expected.keys() | found.keys()) - uncounted)
        if _rows(expected.get(name)) != _rows(found.get(name))
    }
    total = sum(content.rows for name, content in found.items() if name not in uncounted)
    evidence: dict[str, Any] = {"tables": len(expected), "rows": total}
    if uncounted:
        evidence["uncounted"] = sorted(".".join(name) for name in uncounted)[:_MOST]
    if different:
        evidence["different"] = dict(list(different.items())[:_MOST])
        return Outcome.FAIL, f"{len(different)} of {len(expected)} tables have other numbers of rows", evidence
    if uncounted and not expected:
        return Outcome.NOT_RUN, "the dump's text does not tell how many rows there were", evidence
    beside = f"; the dump's text tells nothing of {len(uncounted)} more" if uncounted else ""
    return Outcome.PASS, f"{total} rows in {len(expected)} tables, as in the original{beside}", evidence


def content(
    original: Reference,
    found: Mapping[Name, Content] | None,
    blobs: LargeObjects | None,
    unsettled: AbstractSet[Name] = frozenset(),
) -> Answer:
    """Checksums, table by table, and that of the large objects; of these at least the number, where one is missing.

    Of tables that are `unsettled` another checksum proves nothing: their rows' text depends on who wrote it.
    """
    expected = {name: c for name, c in (original.tables or {}).items() if c.checksum is not None}
    if not expected and not (original.tables is not None and original.large_objects is not None):
        return Outcome.NOT_RUN, "nothing tells the content's checksums: neither a manifest nor pg_dump's rows", {}
    if found is None:
        return Outcome.NOT_RUN, "the tables could not be read", {}
    recipes = {str(c.checksum).partition(":")[0] for c in expected.values()} - {RECIPE}
    if recipes:
        return Outcome.NOT_RUN, f"the checksums are of another kind: {', '.join(sorted(recipes))}", {}
    others = [name for name, c in expected.items() if name not in found or found[name].checksum != c.checksum]
    # With other numbers of rows it is not the settings.
    unproven = {name for name in others if name in unsettled and _rows(found.get(name)) == expected[name].rows}
    different = sorted(".".join(name) for name in others if name not in unproven)
    evidence: dict[str, Any] = {"tables": len(expected)}
    if unproven:
        evidence["unproven"] = sorted(".".join(name) for name in unproven)[:_MOST]
    unread: str | None = None
    if original.large_objects is not None and blobs is not None:
        evidence["large_objects"] = blobs.count
        unread = _blobs(original.large_objects, blobs, different)
    evidence["different"] = different[:_MOST]
    if different:
        return Outcome.FAIL, f"the content of {len(different)} tables is not the original's", evidence
    untold = {name for name, c in (original.tables or {}).items() if c.rows and c.checksum is None}
    untold |= original.uncounted
    left = [f"that of {blobs.count if blobs else 0} large objects {unread}"] if unread is not None else []
    if untold:
        evidence["untold"] = sorted(".".join(name) for name in untold)[:_MOST]
        left.append(f"nothing tells that of {len(untold)}")
    if unproven:
        why = "the dumping server's settings, such as its time zone, or other values give their rows another text"
        left.append(f"of {len(unproven)} it is not proven: {why}")
    reason = "; ".join([f"the content of {len(expected) - len(unproven)} tables is the original's", *left])
    return (Outcome.NOT_RUN if left else Outcome.PASS), reason, evidence


def _blobs(then: LargeObjects, now: LargeObjects, different: list[str]) -> str | None:
    """Add the large objects to what differs, or return why only their number could be compared."""
    comparable = (then.checksum or "").partition(":")[0] == large_objects.RECIPE
    if then.count != now.count or (comparable and now.checksum is not None and then.checksum != now.checksum):
        different.append(f"large objects ({now.count}, were {then.count})")
        return None
    if not now.count or (comparable and now.checksum is not None):
        return None
    if comparable:
        return "may not be read by the role"
    kind = (then.checksum or "none").partition(":")[0]
    return f"was not compared: the checksum is of another kind ({kind})"


def sequence_values(expected: Mapping[Name, tuple[int, bool]], found: Mapping[Name, tuple[int, bool, int]]) -> Answer:
    """Every sequence is there and hands out nothing twice."""
    missing = sorted(".".join(name) for name in expected.keys() - found.keys())
    behind = {
        ".".join(name): {"expected": list(value), "found": list(found[name][:2])}
        for name, value in sorted(expected.items())
        if name in found and not at_or_past(found[name], value)
    }
    evidence = {"sequences": len(expected), "missing": missing[:_MOST], "behind": dict(list(behind.items())[:_MOST])}
    if missing or behind:
        return Outcome.FAIL, f"{len(behind)} sequences are behind, {len(missing)} missing", evidence
    return Outcome.PASS, f"{len(expected)} sequences are at or past the original's values", evidence


def keys(original: Reference, checked: list[tuple[Key, int | None]]) -> Answer:
    """No key is broken that was whole at the source.

    Where nothing tells how it was there, a key is not blamed on the restore that the definition leaves unvalidated.
    """
    expected = original.foreign_keys
    here = {(key.schema, key.table, key.name) for key, _ in checked}
    missing = sorted(".".join(name) for name in (expected or {}).keys() - here)
    broken: dict[str, Any] = {}
    broken_before: dict[str, Any] = {}
    unproven: dict[str, Any] = {}
    unchecked: list[str] = []
    for key, violations in checked:
        name = (key.schema, key.table, key.name)
        before = (expected or {}).get(name)
        unknown = expected is None or name in expected
        if violations is None:
            unchecked.append(key.title)
        elif violations and before is None and unknown and not key.validated:
            unproven[key.title] = {"rows": violations, "at_source": None}
        elif violations > (before or 0):
            broken[key.title] = {"rows": violations, "at_source": before}
        elif violations:
            broken_before[key.title] = {"rows": violations, "at_source": before}
    evidence = {
        "keys": len(checked),
        "missing": missing[:_MOST],
        "broken": broken,
        "broken_at_source": {**broken_before, **unproven},
        "not_checked": unchecked,
    }
    if broken or missing:
        return Outcome.FAIL, f"{len(broken)} foreign keys are broken, {len(missing)} missing", evidence
    reason = f"{len(checked) - len(unchecked) - len(broken_before) - len(unproven)} foreign keys hold"
    if broken_before:
        reason += (
            f"; {len(broken_before)} are broken as they were at the source: {', '.join(sorted(broken_before)[:5])}"
        )
    if unproven:
        reason += (
            f"; {len(unproven)} are broken, and the dump itself leaves them unvalidated:"
            f" {', '.join(sorted(unproven)[:5])}"
        )
    if unchecked:
        reason += f"; {len(unchecked)} over periods or not enforced were not checked"
    return Outcome.PASS, reason, evidence


def _rows(content: Content | None) -> int | None:
    return content.rows if content is not None else None


def _privileges(item: SchemaObject) -> set[str]:
    grants: set[str] = set()
    for entry in item.privileges or ():
        role, _, listed = entry.partition("=")
        # MAINTAIN is a privilege from 17 on, which owners then have by default.
        grants |= {f"{role}={privilege}" for privilege in listed.split(",") if privilege not in ("MAINTAIN", "")}
    return grants
