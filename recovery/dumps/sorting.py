"""In what two databases sort text differently: the versions of their collations, and their default locales."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from recovery.dumps.manifest import Collation, DatabaseState

DEFAULT = "the database's default"

Differences = dict[str, list[str | None]]


def differing(
    then: DatabaseState | None,
    known: tuple[Collation, ...] | None,
    state: DatabaseState,
    now: tuple[Collation, ...],
) -> tuple[Differences, Differences]:
    """Return the versions, and the default locale, that are not the original's: by name, what was and what is.

    Nothing where the original's are not known.
    """
    if then is None or known is None:
        return {}, {}
    before_by_name = {c.name: c.version for c in known}
    versions: Differences = {
        c.name: [before_by_name[c.name], c.version] for c in now if _differ(before_by_name.get(c.name), c.version)
    }
    # Beside ICU's and the server's own locales the system's decide nothing of the order.
    before, here = (
        [s.provider, _plain(s.locale or s.collate), *([_plain(s.ctype)] if s.provider == "c" else [])]
        for s in (then, state)
    )
    if before != here:
        return versions, {DEFAULT: [" ".join(map(str, before)), " ".join(map(str, here))]}
    if _differ(then.collation_version, state.collation_version):
        versions[DEFAULT] = [then.collation_version, state.collation_version]
    return versions, {}


def _differ(before: str | None, here: str | None) -> bool:
    """Whether both versions are known and not the same: servers before 15, and the C locale, state none."""
    return before is not None and here is not None and before != here


def _plain(locale: str | None) -> str | None:
    """A locale as every platform spells it: C.UTF-8 and C.utf8 are one."""
    return None if locale is None else locale.lower().replace("-", "")
