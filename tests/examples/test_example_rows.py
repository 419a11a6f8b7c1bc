"""The generated data: a function of its seed, of the asked size, in flat memory."""

from __future__ import annotations

import hashlib
import tracemalloc

import pytest

from examples.agentverse.rows import TABLES, Platform


def _digest(platform: Platform) -> str:
    digest = hashlib.sha256()
    for table in TABLES:
        for chunk, _ in table.chunks(platform):
            digest.update(chunk)
    return digest.hexdigest()


def _sizes(platform: Platform) -> dict[str, int]:
    return {table.name: sum(len(chunk) for chunk, _ in table.chunks(platform)) for table in TABLES}


def test_the_same_seed_makes_the_same_bytes_and_another_one_others() -> None:
    assert _digest(Platform(seed=7, projects=9)) == _digest(Platform(seed=7, projects=9))
    assert _digest(Platform(seed=7, projects=9)) != _digest(Platform(seed=8, projects=9))


def test_the_bytes_of_a_seed_do_not_depend_on_the_process_or_the_python_version() -> None:
    # Written down, so that a change of the data is a decision and not an accident.
    assert _digest(Platform(seed=7, projects=3)) == "ebc6843668ff8aef8966cdc552785bf9787130f7ce17ea26221cad6c7c39d6d9"


@pytest.mark.parametrize("seed", [1, 7, 4711])
def test_the_size_is_about_the_one_asked_for_and_run_events_are_most_of_it(seed: int) -> None:
    sizes = _sizes(Platform.of_size(20, seed=seed))
    total = sum(sizes.values())
    assert 18_000_000 < total < 22_000_000
    assert 0.75 < sizes["run_events"] / total < 0.9


def test_memory_does_not_grow_with_the_size() -> None:
    def peak(projects: int) -> int:
        tracemalloc.start()
        try:
            _sizes(Platform(seed=7, projects=projects))
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert peak(60) < peak(6) + 1_000_000


def test_identities_look_like_uuids_and_never_meet() -> None:
    platform = Platform(seed=7, projects=1)
    identities = {platform.uuid(kind, index) for kind in ("run", "persona") for index in range(2000)}
    assert len(identities) == 4000
    assert all(identity[14] == "4" and identity[19] in "89ab" and len(identity) == 36 for identity in identities)
