"""Where things are, by answers as AWS gives them, each checked by botocore against the service's own model."""

from __future__ import annotations

import pytest
from botocore.stub import Stubber

from recovery.clients import Clients
from recovery.errors import CheckFailedError
from recovery.places import find_database

NAME = "agentverse-prod-dr-20260109-020000-1a2b-db"


@pytest.fixture
def clients(monkeypatch: pytest.MonkeyPatch) -> Clients:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    return Clients("us-west-2")


def test_a_database_that_is_not_there_yet_or_still_made_is_waited_for(clients: Clients) -> None:
    with Stubber(clients("rds")) as rds:
        rds.add_client_error("describe_db_instances", "DBInstanceNotFound")
        assert find_database(clients, NAME) is None
        for status in ("creating", "configuring-enhanced-monitoring", "backing-up", "modifying"):
            rds.add_response("describe_db_instances", {"DBInstances": [{"DBInstanceStatus": status}]})
            assert find_database(clients, NAME) is None


@pytest.mark.parametrize("status", ["failed", "inaccessible-encryption-credentials", "insufficient-capacity"])
def test_a_database_that_cannot_come_ends_the_waiting(clients: Clients, status: str) -> None:
    with Stubber(clients("rds")) as rds:
        rds.add_response("describe_db_instances", {"DBInstances": [{"DBInstanceStatus": status}]})
        with pytest.raises(CheckFailedError, match=status):
            find_database(clients, NAME)
