"""What the `dr` stack exports, typed and versioned: the door through which recovery learns what infra declared."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.alias_generators import to_camel

from recovery.errors import CheckFailedError

SCHEMA_VERSION = 1


class Outputs(BaseModel):
    """Outputs of one DR environment. Ports are TCP ports, endpoints host names."""

    model_config = ConfigDict(frozen=True, alias_generator=to_camel, populate_by_name=True, extra="ignore")

    schema_version: Literal[1]
    program: Literal["dr"]
    account: str
    region: str
    drill_id: str
    mode: Literal["drill", "failover"]
    expires_at: datetime
    owner: str
    vpc_id: str
    subnet_ids: tuple[str, ...]
    task_security_group_id: str
    database_identifier: str
    database_endpoint: str
    database_port: int
    database_name: str
    database_username: str
    database_secret_arn: str
    cache_group_id: str
    cache_endpoint: str
    cache_port: int
    cache_secret_arn: str
    cluster_arn: str
    recovery_task_definition_arn: str
    recovery_container_name: str
    log_group_name: str
    backups_bucket: str
    evidence_bucket: str


def read_outputs(values: Mapping[str, object]) -> Outputs:
    """Read stack outputs. Raises CheckFailedError naming what is missing, of another type or of another version."""
    if values.get("schemaVersion") != SCHEMA_VERSION:
        raise CheckFailedError(
            f"The stack's outputs are of version {values.get('schemaVersion')!r}, not {SCHEMA_VERSION}.",
            hint="Run infra and recovery of the same commit.",
        )
    try:
        return Outputs.model_validate(dict(values))
    except ValidationError as exc:
        problems = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in exc.errors())
        raise CheckFailedError(
            "The stack's outputs are not those of a DR environment.",
            detail=problems,
            hint="The stack's program must be dr; see outputs in infra/dr.py.",
        ) from exc
