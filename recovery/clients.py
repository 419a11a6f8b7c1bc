"""One factory of AWS clients: explicit region, bounded time-outs, the SDK's standard retries."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Literal, cast, overload

import boto3
import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

from recovery.errors import EnvironmentLacksError, RecoveryError, RefusedError

if TYPE_CHECKING:
    from mypy_boto3_cloudwatch.client import CloudWatchClient
    from mypy_boto3_ec2.client import EC2Client
    from mypy_boto3_ecs.client import ECSClient
    from mypy_boto3_elasticache.client import ElastiCacheClient
    from mypy_boto3_logs.client import CloudWatchLogsClient
    from mypy_boto3_rds.client import RDSClient
    from mypy_boto3_resourcegroupstaggingapi.client import ResourceGroupsTaggingAPIClient
    from mypy_boto3_s3.client import S3Client
    from mypy_boto3_secretsmanager.client import SecretsManagerClient
    from mypy_boto3_sts.client import STSClient

# A region that is gone must cost seconds, not the SDK's default of minutes.
_CONFIG = Config(
    connect_timeout=5,
    read_timeout=60,
    retries={"mode": "standard", "max_attempts": 3},
    user_agent_extra="agentverse-dr",
    s3={"us_east_1_regional_endpoint": "regional"},
)

AwsError = (ClientError, BotoCoreError)


class Clients:
    """Clients of one region, made when first asked for and shared between threads (which boto3 allows of clients)."""

    def __init__(self, region: str) -> None:
        """Prepare clients of `region`; nothing is called."""
        self.region = region
        self._made: dict[str, Any] = {}
        # Making a client is what boto3 does not allow from several threads at once.
        self._mutex = threading.Lock()

    @overload
    def __call__(self, service: Literal["s3"]) -> S3Client: ...
    @overload
    def __call__(self, service: Literal["ec2"]) -> EC2Client: ...
    @overload
    def __call__(self, service: Literal["rds"]) -> RDSClient: ...
    @overload
    def __call__(self, service: Literal["ecs"]) -> ECSClient: ...
    @overload
    def __call__(self, service: Literal["elasticache"]) -> ElastiCacheClient: ...
    @overload
    def __call__(self, service: Literal["logs"]) -> CloudWatchLogsClient: ...
    @overload
    def __call__(self, service: Literal["cloudwatch"]) -> CloudWatchClient: ...
    @overload
    def __call__(self, service: Literal["secretsmanager"]) -> SecretsManagerClient: ...
    @overload
    def __call__(self, service: Literal["sts"]) -> STSClient: ...
    @overload
    def __call__(self, service: Literal["resourcegroupstaggingapi"]) -> ResourceGroupsTaggingAPIClient: ...
    def __call__(self, service: str) -> Any:
        """Return the client of a service in this region."""
        with self._mutex:
            if service not in self._made:
                own = botocore.session.get_session()
                # An operator's setting may still name the global endpoint, which is us-east-1 and goes with it.
                own.set_config_variable("sts_regional_endpoints", "regional")
                session = boto3.session.Session(botocore_session=own, region_name=self.region)
                make = cast("Any", session.client)
                self._made[service] = make(service, region_name=self.region, config=_CONFIG)
            return self._made[service]


def caller_account(clients: Clients) -> str:
    """Return the 12-digit account of the credentials in use. Raises EnvironmentLacksError when there are none."""
    try:
        return clients("sts").get_caller_identity()["Account"]
    except NoCredentialsError as exc:
        raise EnvironmentLacksError(
            "There are no AWS credentials.",
            detail=str(exc),
            hint="Sign in to the account of the platform, or use --local for the embedded cloud.",
        ) from exc
    except AwsError as exc:
        raise EnvironmentLacksError(
            f"AWS in {clients.region} does not say who is calling.",
            detail=str(exc),
            hint="Check credentials and network; with --local check `localcloud status`.",
        ) from exc


def refuse_foreign_account(clients: Clients, expected: str, *, settings_file: str) -> str:
    """Return the caller's account if it is the expected one.

    Raises RefusedError naming both accounts, or that none is expected; EnvironmentLacksError without credentials.
    """
    account = caller_account(clients)
    if not expected:
        raise RefusedError(
            "No account is set, so nothing may be created or destroyed.",
            detail=f"The credentials in use belong to account {account}.",
            hint=f'If that is the platform\'s, set platform.account = "{account}" in {settings_file}.',
        )
    if account != expected:
        raise RefusedError(
            f"The credentials in use belong to account {account}, the platform to {expected}.",
            hint="Sign in to the platform's account; nothing was changed.",
        )
    return account


def aws_problem(what: str, exc: Exception) -> RecoveryError:
    """Return the error of ours for a failed AWS call: the message says what could not be done, the detail is AWS's."""
    if isinstance(exc, ClientError):
        code = exc.response.get("Error", {}).get("Code", "")
        if code in {"AccessDenied", "AccessDeniedException", "UnauthorizedOperation"}:
            return EnvironmentLacksError(what, detail=str(exc), hint="The credentials in use lack this permission.")
        return RecoveryError(what, detail=str(exc))
    return EnvironmentLacksError(what, detail=str(exc), hint="The service did not answer; check network and region.")
