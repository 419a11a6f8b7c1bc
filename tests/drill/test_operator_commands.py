"""What an operator has besides drills, environments and backups: the doctor, Pulumi by hand, their own AWS settings."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from conftest import Database, Operator

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
OTHER_ACCOUNT = "999999999999"


def test_pulumi_previews_dr_by_hand_from_the_repository(operator: Operator, tmp_path: Path) -> None:
    """What README says; in a copy, because selecting a stack writes into its settings file."""
    copy = tmp_path / "repository"
    aside = shutil.ignore_patterns(".git", ".venv", ".tools", "drills", "__pycache__", ".*_cache")
    shutil.copytree(ROOT, copy, ignore=aside)
    (copy / ".venv").symlink_to(sys.prefix)
    script = (
        'set -e; export PATH="$PWD/.venv/bin:$PATH"; eval "$(localcloud env)"; '
        "pulumi stack select --create dr; pulumi preview -s dr --non-interactive --color never; "
        "pulumi preview -s dr --policy-pack policy --non-interactive --color never; pulumi stack rm dr --yes"
    )
    done = subprocess.run(
        ["/bin/sh", "-c", script], env=operator.environment(), cwd=copy,
        capture_output=True, text=True, check=False, timeout=280,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("to create") == 2
    assert "error" not in done.stdout


def test_the_doctor_tells_what_is_there_and_what_is_not(operator: Operator) -> None:
    well = operator.json("doctor")
    assert {check["outcome"] for check in well["checks"]} == {"ok"}
    text = operator.settings.read_text().replace("[platform]\n", '[platform]\nevidence_bucket = "not-here"\n')
    operator.settings.write_text(text)
    ill = operator.json("doctor", code=4)
    assert [check["name"] for check in ill["checks"] if check["outcome"] != "ok"] == ["evidence bucket"]
    page = operator("doctor")
    assert page.returncode == 4
    assert "not-here does not answer" in page.stdout


@pytest.fixture
def elsewhere() -> Iterator[tuple[str, list[object]]]:
    """A place that no call may reach: its address, and who has called."""
    callers: list[object] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            while True:
                try:
                    connection, caller = listener.accept()
                except OSError:
                    return
                callers.append(caller)
                connection.close()

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", callers
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(10)


def test_an_operators_own_aws_settings_lead_nothing_astray(
    operator: Operator, production: Database, elsewhere: tuple[str, list[object]], tmp_path: Path
) -> None:
    address, callers = elsewhere
    profiles = tmp_path / "config"
    services = "".join(f"{name} =\n  endpoint_url = {address}\n" for name in ("s3", "sts", "ec2", "rds"))
    profiles.write_text(
        f"[profile real]\nregion = eu-central-1\nendpoint_url = {address}\nservices = all\n"
        f"[default]\nendpoint_url = {address}\nservices = all\n[services all]\n{services}"
    )
    credentials = tmp_path / "credentials"
    credentials.write_text("[real]\naws_access_key_id = AKIAREAL\naws_secret_access_key = real\n")
    own: dict[str, Any] = {
        "AWS_PROFILE": "real", "AWS_DEFAULT_PROFILE": "real", "AWS_ACCESS_KEY_ID": "AKIAREAL",
        "AWS_SECRET_ACCESS_KEY": "real", "AWS_SESSION_TOKEN": "real", "AWS_REGION": "eu-central-1",
        "AWS_CONFIG_FILE": str(profiles), "AWS_SHARED_CREDENTIALS_FILE": str(credentials),
        "AWS_ENDPOINT_URL": address, "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true", "AWS_USE_FIPS_ENDPOINT": "true",
        **{f"AWS_ENDPOINT_URL_{name}": address for name in ("S3", "STS", "EC2", "RDS", "ECS", "SECRETS_MANAGER")},
        "HTTP_PROXY": address, "HTTPS_PROXY": address, "http_proxy": address, "ALL_PROXY": address,
        "PULUMI_BACKEND_URL": address, "PULUMI_ACCESS_TOKEN": "real", "PULUMI_CONFIG_PASSPHRASE_FILE": "/none",
        "AGENTVERSE_ACCOUNT": OTHER_ACCOUNT,
    }  # fmt: skip
    assert {check["outcome"] for check in operator.json("doctor", **own)["checks"]} == {"ok"}
    taken = operator.json("backup", AGENTVERSE_DATABASE_URL=production.dsn, PGPASSWORD=production.password, **own)
    assert taken["backup"]["sealed"]
    assert operator.json("backups", "verify", "--region", "us-east-1", **own)["readable"]
    made = operator.json("environment", "up", **own)
    assert made["outputs"]["account"] == operator.cloud.document["account"]
    assert operator.json("--yes", "environment", "down", made["drill"], **own)["removed"]
    assert operator.cloud.leftovers() == []
    assert callers == []
