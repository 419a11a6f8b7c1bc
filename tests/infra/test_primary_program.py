"""What the primary program declares, as a whole stack on the recording engine."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pulumi
import pytest

from infra import storage

BUCKETS = {
    "objects": ("agentverse-primary", "us-east-1"),
    "backups": ("agentverse-backups", "us-east-1"),
    "dr-backups": ("agentverse-backups-dr", "us-west-2"),
    "evidence": ("agentverse-evidence-dr", "us-west-2"),
}
KEYS = {"us-east-1": "arn:aws:kms/Key:us-east-1:123456789012:key-key"}
KEYS["us-west-2"] = "arn:aws:kms/Key:us-west-2:123456789012:dr-key-key"
CONTRACT_OUTPUTS = [
    "schemaVersion",
    "program",
    "account",
    "region",
    "drRegion",
    "primaryBucket",
    "backupsBucket",
    "drBackupsBucket",
    "evidenceBucket",
    "kmsKeyArn",
    "drKmsKeyArn",
    "replicationRoleArn",
    "backupRoleArn",
    "drTaskRoleArn",
    "drExecutionRoleArn",
    "vpcId",
    "subnetIds",
    "databaseIdentifier",
    "databaseEndpoint",
    "databasePort",
    "databaseName",
    "databaseUsername",
    "databaseSecretArn",
    "cacheGroupId",
    "cacheEndpoint",
    "cachePort",
    "cacheSecretArn",
    "recoveryRepositoryUrl",
]


def test_the_four_buckets_stand_where_the_runbook_wants_them(run: Callable[..., Any]) -> None:
    engine = run("primary")
    made = {bucket.inputs["bucket"]: bucket.inputs["region"] for bucket in engine.of("s3/Bucket")}
    assert made == dict(BUCKETS.values())


@pytest.mark.parametrize("name", sorted(BUCKETS))
def test_every_bucket_is_versioned_private_and_encrypted_with_the_key_of_its_own_region(
    run: Callable[..., Any], name: str
) -> None:
    engine = run("primary")
    bucket, region = BUCKETS[name]
    versioning = engine.one("s3/BucketVersioning", f"{name}-versioning").inputs
    assert versioning["versioningConfiguration"]["status"] == "Enabled"
    (rule,) = engine.one("s3/BucketServerSideEncryptionConfiguration", f"{name}-encryption").inputs["rules"]
    assert rule["bucketKeyEnabled"] is True
    assert rule["applyServerSideEncryptionByDefault"] == {"sseAlgorithm": "aws:kms", "kmsMasterKeyId": KEYS[region]}
    private = engine.one("s3/BucketPublicAccessBlock", f"{name}-private").inputs
    assert all(
        private[prop] is True
        for prop in ("blockPublicAcls", "blockPublicPolicy", "ignorePublicAcls", "restrictPublicBuckets")
    )
    ownership = engine.one("s3/BucketOwnershipControls", f"{name}-ownership").inputs
    assert ownership["rule"] == {"objectOwnership": "BucketOwnerEnforced"}
    companions = [resource for resource in engine.resources if resource.name.startswith(f"{name}-")]
    for companion in companions:
        if companion.kind.startswith("s3/Bucket") and "replication" not in companion.name:
            assert (companion.inputs["bucket"], companion.inputs["region"]) == (bucket, region), companion


@pytest.mark.parametrize("name", sorted(BUCKETS))
def test_every_bucket_refuses_plain_http_and_uploads_under_another_key(run: Callable[..., Any], name: str) -> None:
    bucket, region = BUCKETS[name]
    policy = json.loads(run("primary").one("s3/BucketPolicy", f"{name}-policy").inputs["policy"])
    statements = {statement["Sid"]: statement for statement in policy["Statement"]}
    assert {statement["Effect"] for statement in statements.values()} == {"Deny"}
    tls = statements["TlsOnly"]
    assert tls["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
    assert tls["Resource"] == [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"]
    other = statements["NoOtherKey"]["Condition"]
    (compared,) = other["StringNotEquals"].items()
    assert compared[1] == KEYS[region]
    # An upload that names no key takes the bucket's own, and must get through.
    assert other["Null"] == {compared[0]: "false"}
    assert statements["NoOtherEncryption"]["Condition"]["Null"] == {"s3:x-amz-server-side-encryption": "false"}


def test_nothing_is_expired_by_age_alone_under_db(run: Callable[..., Any]) -> None:
    engine = run("primary")
    for lifecycle in engine.of("s3/BucketLifecycleConfiguration"):
        for rule in lifecycle.inputs["rules"]:
            if not (rule.get("expiration") or {}).get("days"):
                continue
            prefix, tags = _filter(rule["filter"])
            reaches_dumps = "db/".startswith(prefix) or prefix.startswith("db/")
            assert not reaches_dumps or tags == {"agentverse:superseded": "true"}, (lifecycle, rule)


def test_superseded_dumps_expire_after_thirty_days_on_both_sides(run: Callable[..., Any]) -> None:
    engine = run("primary")
    for name in ("backups", "dr-backups"):
        rules = _lifecycle(engine, name)
        assert rules["superseded-dumps"]["expiration"]["days"] == 30
        assert _filter(rules["superseded-dumps"]["filter"]) == ("db/", {"agentverse:superseded": "true"})


def test_what_drills_put_into_the_dr_bucket_expires_and_nothing_of_the_evidence_does(run: Callable[..., Any]) -> None:
    engine = run("primary", drillObjectsRetentionDays=3)
    drills = _lifecycle(engine, "dr-backups")["drill-objects"]
    assert (_filter(drills["filter"]), drills["expiration"]["days"]) == (("drills/", {}), 3)
    assert set(_lifecycle(engine, "evidence")) == {"incomplete-uploads"}


@pytest.mark.parametrize("name", ["objects", "backups", "dr-backups"])
def test_old_versions_and_given_up_uploads_are_cleaned_up(run: Callable[..., Any], name: str) -> None:
    rules = _lifecycle(run("primary", noncurrentRetentionDays=45), name)
    assert rules["noncurrent-versions"]["noncurrentVersionExpiration"]["noncurrentDays"] == 45
    assert rules["incomplete-uploads"]["abortIncompleteMultipartUpload"]["daysAfterInitiation"] == 7


def test_only_the_evidence_is_lockable_and_no_bucket_has_a_default_retention(run: Callable[..., Any]) -> None:
    engine = run("primary")
    lockable = {bucket.name for bucket in engine.of("s3/Bucket") if bucket.inputs.get("objectLockEnabled")}
    assert lockable == {"evidence-bucket"}
    lock = engine.one("s3/BucketObjectLockConfiguration").inputs
    assert (lock["bucket"], lock["objectLockEnabled"]) == ("agentverse-evidence-dr", "Enabled")
    assert "rule" not in lock


def test_each_source_bucket_has_one_replication_configuration_with_the_prefixes_of_the_runbook(
    run: Callable[..., Any],
) -> None:
    configurations = run("primary").of("s3/BucketReplicationConfig")
    routes = {
        configuration.inputs["bucket"]: {
            rule["filter"]["prefix"]: rule["destination"]["bucket"] for rule in configuration.inputs["rules"]
        }
        for configuration in configurations
    }
    assert len(configurations) == len(routes)
    assert routes == {
        "agentverse-backups": {"db/": "arn:aws:s3:::agentverse-backups-dr"},
        "agentverse-primary": {
            "telemetry/": "arn:aws:s3:::agentverse-backups-dr",
            "snapshots/": "arn:aws:s3:::agentverse-backups-dr",
            "exports/": "arn:aws:s3:::agentverse-backups",
        },
    }


def test_every_replication_rule_copies_kms_objects_under_the_key_of_the_destination(run: Callable[..., Any]) -> None:
    regions = dict(BUCKETS.values())
    for rule in _replication_rules(run("primary")):
        assert rule["status"] == "Enabled"
        assert rule["sourceSelectionCriteria"]["sseKmsEncryptedObjects"] == {"status": "Enabled"}
        region = regions[rule["destination"]["bucket"].removeprefix("arn:aws:s3:::")]
        assert rule["destination"]["encryptionConfiguration"] == {"replicaKmsKeyId": KEYS[region]}


def test_every_replication_rule_is_measured_and_across_regions_bound_to_fifteen_minutes(
    run: Callable[..., Any],
) -> None:
    for rule in _replication_rules(run("primary")):
        destination = rule["destination"]
        assert destination["metrics"]["status"] == "Enabled"
        if destination["bucket"].endswith("-dr"):
            assert destination["replicationTime"] == {"status": "Enabled", "time": {"minutes": 15}}
            assert destination["metrics"]["eventThreshold"] == {"minutes": 15}
        else:
            assert "replicationTime" not in destination
            assert "eventThreshold" not in destination["metrics"]


def test_no_replication_rule_carries_deletions_and_no_two_share_a_priority(run: Callable[..., Any]) -> None:
    for configuration in run("primary").of("s3/BucketReplicationConfig"):
        rules = configuration.inputs["rules"]
        assert {rule["deleteMarkerReplication"]["status"] for rule in rules} == {"Disabled"}
        assert len({rule["priority"] for rule in rules}) == len({rule["id"] for rule in rules}) == len(rules)


def test_replication_waits_for_versioning_of_both_sides_and_for_its_role(run: Callable[..., Any]) -> None:
    order = [resource.name for resource in run("primary").resources]
    for name in ("backups-replication-config", "objects-replication-config"):
        before = order[: order.index(name)]
        assert {"backups-versioning", "dr-backups-versioning", "replication-policy"} <= set(before)
    assert "objects-versioning" in order[: order.index("objects-replication-config")]


def test_each_region_has_its_own_rotating_key_under_the_same_alias(run: Callable[..., Any]) -> None:
    engine = run("primary")
    assert {key.inputs["region"] for key in engine.of("kms/Key")} == {"us-east-1", "us-west-2"}
    assert all(key.inputs["enableKeyRotation"] is True for key in engine.of("kms/Key"))
    assert {(alias.inputs["region"], alias.inputs["name"]) for alias in engine.of("kms/Alias")} == {
        ("us-east-1", "alias/agentverse-prod"),
        ("us-west-2", "alias/agentverse-prod"),
    }
    for key in engine.of("kms/Key"):
        statements = {statement["Sid"]: statement for statement in json.loads(key.inputs["policy"])["Statement"]}
        logs = statements["LogGroupsOfThisAccount"]
        assert logs["Principal"] == {"Service": f"logs.{key.inputs['region']}.amazonaws.com"}
        assert "123456789012" in json.dumps(logs["Condition"])


def test_every_service_that_a_recovery_uses_has_its_linked_role_before_the_disaster(run: Callable[..., Any]) -> None:
    services = {role.inputs["awsServiceName"] for role in run("primary").of("iam/ServiceLinkedRole")}
    assert services == {
        f"{service}.amazonaws.com" for service in ("elasticloadbalancing", "ecs", "rds", "elasticache", "autoscaling")
    }


def test_linked_roles_that_the_account_has_already_can_be_left_out(run: Callable[..., Any]) -> None:
    assert run("primary", serviceLinkedRoles=[]).of("iam/ServiceLinkedRole") == []


def test_the_registry_stands_in_the_dr_region(run: Callable[..., Any]) -> None:
    repository = run("primary").one("ecr/Repository").inputs
    assert (repository["name"], repository["region"]) == ("agentverse-recovery", "us-west-2")
    assert repository["imageScanningConfiguration"] == {"scanOnPush": True}
    assert repository["encryptionConfigurations"] == [{"encryptionType": "KMS", "kmsKey": KEYS["us-west-2"]}]


def test_production_is_protected_and_spread_over_two_zones(run: Callable[..., Any]) -> None:
    engine = run("primary")
    database = engine.one("rds/Instance").inputs
    assert (database["deletionProtection"], database["skipFinalSnapshot"], database["multiAz"]) == (True, False, True)
    assert (database["backupRetentionPeriod"], database["publiclyAccessible"]) == (7, False)
    assert database["enabledCloudwatchLogsExports"] == ["postgresql"]
    logs = engine.one("cloudwatch/LogGroup").inputs
    assert (logs["name"], logs["retentionInDays"]) == ("/aws/rds/instance/agentverse-prod-db/postgresql", 30)
    assert engine.one("elasticache/ReplicationGroup").inputs["automaticFailoverEnabled"] is True


def test_the_engine_refuses_to_delete_anything_of_production_unless_protection_was_lifted(
    run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    protected: dict[str, bool] = {}
    original = pulumi.CustomResource.__init__

    def spy(self: Any, t: str, name: str, *args: Any, **kwargs: Any) -> None:
        original(self, t, name, *args, **kwargs)
        protected[name] = bool(self._protect)

    monkeypatch.setattr(pulumi.CustomResource, "__init__", spy)
    run("primary")
    assert protected
    assert all(protected.values())
    protected.clear()
    run("primary", protect=False)
    assert not any(protected.values())


def test_everything_that_can_carry_tags_says_whose_it_is(run: Callable[..., Any]) -> None:
    engine = run("primary")
    for resource in engine.resources:
        if "tags" in resource.inputs:
            assert resource.inputs["tags"]["agentverse:stack"] == "primary"
            assert resource.inputs["tags"]["agentverse:environment"] == "prod"
    assert all(bucket.inputs["tags"] for bucket in engine.of("s3/Bucket"))


def test_the_outputs_are_those_recovery_reads(run: Callable[..., Any]) -> None:
    outputs = run("primary").outputs
    assert sorted(outputs) == sorted(CONTRACT_OUTPUTS)
    assert None not in outputs.values()
    assert (outputs["schemaVersion"], outputs["program"], outputs["drRegion"]) == (1, "primary", "us-west-2")


def test_a_bucket_without_retention_only_loses_uploads_that_were_never_finished() -> None:
    (rule,) = storage.lifecycle_rules(storage.Retention())
    assert rule.id == "incomplete-uploads"


def _lifecycle(engine: Any, name: str) -> dict[str, dict[str, Any]]:
    rules = engine.one("s3/BucketLifecycleConfiguration", f"{name}-lifecycle").inputs["rules"]
    return {rule["id"]: rule for rule in rules}


def _filter(filter_: dict[str, Any]) -> tuple[str, dict[str, str]]:
    both = filter_.get("and") or filter_
    return both.get("prefix", ""), both.get("tags", {})


def _replication_rules(engine: Any) -> list[dict[str, Any]]:
    return [rule for config in engine.of("s3/BucketReplicationConfig") for rule in config.inputs["rules"]]
