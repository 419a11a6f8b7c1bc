"""No client of the DR region may call an address that is served by another region."""

from __future__ import annotations

import pytest

from recovery.clients import Clients


@pytest.mark.parametrize("region", ["us-west-2", "us-east-1", "eu-west-1"])
def test_every_client_calls_its_own_region_whatever_the_operator_has_set(
    monkeypatch: pytest.MonkeyPatch, region: str
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    # Both are served by us-east-1 alone.
    monkeypatch.setenv("AWS_STS_REGIONAL_ENDPOINTS", "legacy")
    monkeypatch.setenv("AWS_S3_US_EAST_1_REGIONAL_ENDPOINT", "legacy")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "ap-southeast-2")
    clients = Clients(region)
    addresses = [
        clients("s3").meta.endpoint_url,
        clients("sts").meta.endpoint_url,
        clients("ec2").meta.endpoint_url,
        clients("rds").meta.endpoint_url,
        clients("ecs").meta.endpoint_url,
        clients("elasticache").meta.endpoint_url,
        clients("logs").meta.endpoint_url,
        clients("secretsmanager").meta.endpoint_url,
        clients("resourcegroupstaggingapi").meta.endpoint_url,
    ]
    assert [address for address in addresses if f".{region}." not in address] == []
