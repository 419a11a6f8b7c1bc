"""recovery.toml: what is right is read, what is wrong is named with file, key and expectation."""

from __future__ import annotations

from pathlib import Path

import pytest

from recovery.errors import UsageError
from recovery.settings import load_settings

REPOSITORY = Path(__file__).resolve().parents[2]


def _write(folder: Path, text: str) -> Path:
    path = folder / "recovery.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_repositorys_own_file_is_valid_and_states_the_defaults(tmp_path: Path) -> None:
    ours = load_settings(REPOSITORY)
    defaults = load_settings(_write(tmp_path, "").parent)
    for table in ("objectives", "database", "drill"):
        assert getattr(ours, table) == getattr(defaults, table)
    assert ours.platform.project == REPOSITORY
    assert len(ours.contacts) == 4


def test_the_nearest_file_above_is_read(tmp_path: Path) -> None:
    _write(tmp_path, "[objectives]\nrto_hours = 2\n")
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    assert load_settings(inner).objectives.rto_hours == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[platform]\naccount = "12"\n', r"platform\.account = '12'.*12 digits"),
        ('[platform]\ndr_region = "west"\n', r"platform\.dr_region = 'west'.*us-west-2"),
        ('[database]\ndsn_env = "postgresql://u:p@h/d"\n', r"database\.dsn_env .*not an address"),
        ("[objectives]\nrto_hours = 0\n", r"objectives\.rto_hours = 0.*greater than 0"),
        ("[objectives]\nrto = 4\n", r"objectives\.rto is not a known key"),
        ('[[checks]]\nname = "x"\n', r"checks\.0\.sql is missing"),
        ("[objectives\n", "not TOML"),
        ('[verify]\nrequired = ["server", "rowz"]\n', r"verify\.required\.1 = 'rowz'.*'rows'"),
        ('[platform]\nenvironment = "production1"\n', r"platform\.environment = 'production1'.*up to 10"),
    ],
)
def test_a_bad_value_names_file_key_and_expectation(tmp_path: Path, text: str, said: str) -> None:
    path = _write(tmp_path, text)
    with pytest.raises(UsageError, match=said) as caught:
        load_settings(tmp_path)
    assert str(path) in caught.value.message


def test_the_environment_overrides_account_owner_and_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTVERSE_CONFIG", str(_write(tmp_path, "")))
    monkeypatch.setenv("AGENTVERSE_ACCOUNT", "210987654321")
    monkeypatch.setenv("AGENTVERSE_OWNER", "somebody")
    monkeypatch.setenv("AGENTVERSE_DRILLS", str(tmp_path / "elsewhere"))
    settings = load_settings()
    assert (settings.platform.account, settings.drill.owner) == ("210987654321", "somebody")
    assert settings.drills == tmp_path / "elsewhere"


def test_a_missing_file_that_was_asked_for_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTVERSE_CONFIG", str(tmp_path / "none.toml"))
    with pytest.raises(UsageError, match=r"none\.toml cannot be read"):
        load_settings()


def test_more_queries_than_a_task_can_be_given_are_refused_when_the_file_is_read(tmp_path: Path) -> None:
    query = '[[checks]]\nname = "q"\nsql = "SELECT ' + "1 + " * 250 + '1"\n'
    assert len(load_settings(_write(tmp_path, query * 5).parent).checks) == 5
    with pytest.raises(UsageError, match="at most 6144 fit"):
        load_settings(_write(tmp_path, query * 7).parent)


def test_a_sample_query_is_asked_only_where_its_table_is(tmp_path: Path) -> None:
    _write(tmp_path, '[[checks]]\nname = "n"\nsql = "SELECT 1"\nwhen = "nodes"\n')
    check = load_settings(tmp_path).checks[0]
    assert check.applies_to(["public.nodes"])
    assert not check.applies_to(["public.album"])
    assert check.sample() == {"name": "n", "sql": "SELECT 1"}
