"""Where the database is and who we are there: from a DSN, or from a Secrets Manager secret and a host."""

from __future__ import annotations

import json
import os

import boto3
from botocore.exceptions import BotoCoreError, ClientError
from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from examples.agentverse.errors import EnvironmentLacksError, WrongUsageError

DSN_VARIABLE = "AGENTVERSE_DATABASE_URL"


def dsn_from_secret(secret: str, *, host: str, port: int, database: str, region: str | None = None) -> str:
    """Return a DSN with the username and password of a secret as RDS writes it.

    An ARN names its own region; a plain secret name is looked up in `region`, or in the environment's.
    Raises EnvironmentLacksError where the secret cannot be read or is no such secret.
    """
    if secret.startswith("arn:"):
        region = secret.split(":")[3]
    try:
        answer = boto3.client("secretsmanager", region_name=region).get_secret_value(SecretId=secret)
    except (BotoCoreError, ClientError) as exc:
        raise EnvironmentLacksError(
            f"the secret {secret} cannot be read",
            detail=str(exc),
            hint="check name, region and permissions",
        ) from exc
    try:
        content = json.loads(answer["SecretString"])
        return make_conninfo(
            host=host, port=port, dbname=database, user=content["username"], password=content["password"]
        )
    except (KeyError, TypeError, ValueError) as exc:
        # Not the text of the error: it may quote the secret.
        raise EnvironmentLacksError(
            f"the secret {secret} is not a database secret",
            detail=f"{type(exc).__name__} where a JSON object with username and password was expected",
            hint="give the ARN that DescribeDBInstances shows under MasterUserSecret",
        ) from None


def choose_dsn(
    *, dsn: str | None, secret: str | None, host: str | None, port: int, database: str, region: str | None
) -> str:
    """Return the DSN that was meant: given, made from a secret, or from the environment (AGENTVERSE_DATABASE_URL).

    Raises WrongUsageError where there is none, where there are two, or where a given DSN carries a password: every
    process of this machine can read another one's arguments.
    """
    if dsn is not None and secret is not None:
        raise WrongUsageError("--dsn and --secret both say where the database is", hint="give one of them")
    if secret is not None:
        if host is None:
            raise WrongUsageError("--secret needs --host", hint="a secret has a username and a password, no address")
        return dsn_from_secret(secret, host=host, port=port, database=database, region=region)
    if dsn is not None:
        _refuse_password(dsn)
        return dsn
    found = os.environ.get(DSN_VARIABLE)
    if not found:
        raise WrongUsageError(
            "no database was named", hint=f"give --dsn, or --secret and --host, or set {DSN_VARIABLE}"
        )
    return found


def _refuse_password(dsn: str) -> None:
    try:
        parts = conninfo_to_dict(dsn)
    except ProgrammingError as exc:
        raise WrongUsageError("--dsn is not a PostgreSQL connection string") from exc
    if parts.get("password"):
        raise WrongUsageError(
            "a password in --dsn can be read by every process of this machine",
            hint=f"put the whole DSN into {DSN_VARIABLE}, the password into PGPASSWORD, or give --secret",
        )
