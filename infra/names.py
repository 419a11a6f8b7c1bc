"""Every name that more than one room or stack must agree on, as pure functions of project, environment and drill.

Stacks find each other by these names and never read each other's state: the `dr` program works with the primary
region, and everything kept there, gone.
"""

from __future__ import annotations

import hashlib
from typing import Final, Literal

PROJECT: Final = "agentverse"

# ElastiCache refuses a longer replication group id.
CACHE_GROUP_LIMIT: Final = 40
# RDS refuses a longer instance identifier.
DATABASE_LIMIT: Final = 63

RECOVERY_REPOSITORY: Final = "agentverse-recovery"
RECOVERY_CONTAINER: Final = "recovery"

# Eight characters of SHA-256: two environments that are cut to the same text still get two names.
_DIGEST_LENGTH: Final = 8

RolePurpose = Literal["replication", "backup", "dr-task", "dr-execution"]


def production(environment: str) -> str:
    """Return the beginning of the name of everything in production: `agentverse-prod`."""
    return f"{PROJECT}-{environment}"


def recovery(environment: str, drill_id: str) -> str:
    """Return the beginning of the name of everything in one DR environment: `agentverse-prod-dr-<drill id>`."""
    return f"{recovery_prefix(environment)}{drill_id}"


def recovery_prefix(environment: str) -> str:
    """Return what the names of all DR environments of one production begin with, for permissions and sweeps."""
    return f"{production(environment)}-dr-"


def database(base: str) -> str:
    """Return the RDS instance identifier of the environment whose names begin with `base`; at most 63 characters."""
    return fitted(f"{base}-db", DATABASE_LIMIT)


def cache_group(base: str) -> str:
    """Return the ElastiCache replication group id of the environment named `base`; at most 40 characters.

    It carries no suffix: with one, the id of an ordinary drill (39 characters) would not fit and be cut.
    """
    return fitted(base, CACHE_GROUP_LIMIT)


def fitted(name: str, limit: int) -> str:
    """Return `name` when it has at most `limit` characters, else its end with a digest of the whole in front.

    The end is what is kept because the drill id stands there, by which people and sweeps look for leftovers. The
    result begins with a letter and holds no two hyphens in a row, as RDS and ElastiCache ask.
    """
    if len(name) <= limit:
        return name
    head = f"av{hashlib.sha256(name.encode()).hexdigest()[:_DIGEST_LENGTH]}-"
    return head + name[len(name) - (limit - len(head)) :].lstrip("-")


def role(environment: str, purpose: RolePurpose) -> str:
    """Return the name of the IAM role that `primary` makes for `purpose`."""
    return f"{production(environment)}-{purpose}"


def role_arn(account: str, environment: str, purpose: RolePurpose) -> str:
    """Return the ARN of that role: `dr` refers to roles by it and never asks IAM, which dies with us-east-1."""
    return f"arn:aws:iam::{account}:role/{role(environment, purpose)}"


def key_alias(environment: str) -> str:
    """Return the alias under which each region has its own KMS key."""
    return f"alias/{production(environment)}"


def recovery_image(account: str, region: str) -> str:
    """Return the recovery image of this account's registry in `region`, tag `latest`."""
    return f"{account}.dkr.ecr.{region}.amazonaws.com/{RECOVERY_REPOSITORY}:latest"


def database_log_group(identifier: str) -> str:
    """Return the log group RDS writes to; RDS chooses the name, and makes it with no retention if nobody did before."""
    return f"/aws/rds/instance/{identifier}/postgresql"
