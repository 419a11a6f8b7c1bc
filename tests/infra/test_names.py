"""Names fit where AWS puts them, for every environment and drill that the settings let through."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from infra import names

environments = st.from_regex(r"[a-z][a-z0-9]{0,9}", fullmatch=True)
drills = st.from_regex(r"[a-z0-9]+(-[a-z0-9]+)*", fullmatch=True).filter(lambda drill: len(drill) <= 20)
CANONICAL_DRILL = "20260109-020000-1a2b"


@given(environments, drills)
def test_a_cache_group_id_is_one_that_elasticache_takes(environment: str, drill: str) -> None:
    group = names.cache_group(names.recovery(environment, drill))
    assert len(group) <= 40
    assert re.fullmatch(r"[a-z](-?[a-z0-9])*", group)


@given(environments, drills)
def test_a_database_identifier_is_one_that_rds_takes(environment: str, drill: str) -> None:
    identifier = names.database(names.recovery(environment, drill))
    assert len(identifier) <= 63
    assert re.fullmatch(r"[a-z](-?[a-z0-9])*", identifier)


@given(environments)
def test_a_role_name_is_one_that_iam_takes(environment: str) -> None:
    assert all(
        len(names.role(environment, purpose)) <= 64 for purpose in ("replication", "backup", "dr-task", "dr-execution")
    )


@given(environments, environments, drills)
def test_two_environments_never_share_a_cache_group(one: str, other: str, drill: str) -> None:
    groups = {names.cache_group(names.recovery(environment, drill)) for environment in (one, other)}
    assert len(groups) == len({one, other})


@given(st.from_regex(r"[a-z](-?[a-z0-9])*", fullmatch=True), st.integers(min_value=12, max_value=80))
def test_a_fitted_name_keeps_its_end_and_its_form(name: str, limit: int) -> None:
    fitted = names.fitted(name, limit)
    assert len(fitted) <= limit
    assert re.fullmatch(r"[a-z](-?[a-z0-9])*", fitted)
    assert fitted == name or name.endswith(fitted.partition("-")[2])


def test_the_names_of_an_ordinary_drill_are_not_cut_at_all() -> None:
    base = names.recovery("prod", CANONICAL_DRILL)
    assert names.cache_group(base) == "agentverse-prod-dr-20260109-020000-1a2b"
    assert names.database(base) == "agentverse-prod-dr-20260109-020000-1a2b-db"


def test_a_cut_name_still_shows_the_drill() -> None:
    assert names.cache_group(names.recovery("production", CANONICAL_DRILL)).endswith(CANONICAL_DRILL)
