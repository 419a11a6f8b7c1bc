"""The sessions of a backup outlast silence and not their client."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from recovery.dumps import session, snapshot
from recovery.dumps.snapshot import take_snapshot

IDLE_LIMIT = "idle_in_transaction_session_timeout"

pytestmark = pytest.mark.slow  # they wait


def test_sessions_notice_a_peer_that_is_gone_and_keep_what_the_connection_string_says(
    database: str, server16: Any, cutters: Callable[..., Any]
) -> None:
    with cutters(server16) as cutter, session.connect(cutter.dsn(database) + " keepalives_idle=7") as connection:
        parameters = connection.info.get_parameters()
        assert (parameters["keepalives_idle"], parameters["keepalives_interval"]) == ("7", "10")
        assert parameters["tcp_user_timeout"] == "90000"
        assert connection.execute("SHOW client_connection_check_interval").fetchone() == ("5s",)
        assert connection.execute("SHOW idle_in_transaction_session_timeout").fetchone() == ("10min",)
    _, given = session.client_environment(database + " keepalives_idle=7")
    of_pg_dump = psycopg.conninfo.conninfo_to_dict(given)
    assert (of_pg_dump["keepalives_idle"], of_pg_dump["keepalives_interval"]) == ("7", "10")


def test_a_snapshot_outlasts_silence_while_its_client_lives_and_not_when_it_is_gone(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "FIXED_SETTINGS", {**session.FIXED_SETTINGS, IDLE_LIMIT: "1s"})
    monkeypatch.setattr(snapshot, "_SIGN_OF_LIFE_SECONDS", 0.2)
    with take_snapshot(database) as kept:
        time.sleep(2)
        assert kept.still_open()
    silent = take_snapshot(database)
    time.sleep(2)
    assert not silent.still_open()
    silent.connection.close()
