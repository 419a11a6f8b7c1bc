"""Secrets Manager: secrets and their values."""

from __future__ import annotations

from localcloud.provider.calls import Cloud
from localcloud.provider.kind import Change, Item, Kind, Setting
from localcloud.provider.naming import Naming
from localcloud.provider.tags import calls
from localcloud.provider.values import Values

_SERVICE = "secretsmanager"
_CURRENT = "AWSCURRENT"


def _set_policy(change: Change) -> None:
    policy = change.new.get("policy")
    if policy and policy != "{}":
        change.cloud.call(_SERVICE, "PutResourcePolicy", SecretId=change.id, ResourcePolicy=policy)
    elif change.old.get("policy"):
        change.cloud.call(_SERVICE, "DeleteResourcePolicy", SecretId=change.id)


def _secret_outputs(cloud: Cloud, arn: str, _item: Item, state: Values) -> Values:
    if "policy" not in state:
        return {}
    answer = cloud.look(_SERVICE, "GetResourcePolicy", SecretId=arn) or {}
    return {"policy": answer.get("ResourcePolicy") or ("{}" if state["policy"] == "{}" else None)}


def _delete_secret(cloud: Cloud, arn: str, state: Values) -> None:
    days = state.get("recoveryWindowInDays", 30)
    if days:
        cloud.call(_SERVICE, "DeleteSecret", SecretId=arn, RecoveryWindowInDays=days)
    else:  # no window: the name is free again at once
        cloud.call(_SERVICE, "DeleteSecret", SecretId=arn, ForceDeleteWithoutRecovery=True)


def _version_parts(resource_id: str) -> dict[str, str]:
    arn, _, version = resource_id.partition("|")
    return {"SecretId": arn, "VersionId": version}


def _find_version(cloud: Cloud, resource_id: str, _state: Values) -> Item | None:
    parts = _version_parts(resource_id)
    described = cloud.look(_SERVICE, "DescribeSecret", SecretId=parts["SecretId"])
    if described is None or described.get("DeletedDate"):
        return None
    found = cloud.look(_SERVICE, "GetSecretValue", **parts)
    if found is not None:
        found["VersionStages"] = described.get("VersionIdsToStages", {}).get(
            parts["VersionId"], found.get("VersionStages", [])
        )
    # A version that has lost every stage is deprecated: Secrets Manager forgets it in its own time.
    return found if found and found["VersionStages"] else None


def _version_outputs(_cloud: Cloud, _resource_id: str, item: Item, state: Values) -> Values:
    found: Values = {
        "arn": item["ARN"],
        "secretArn": item["ARN"],
        "versionId": item["VersionId"],
        "versionStages": sorted(item.get("VersionStages", [])),
        "secretId": state.get("secretId") or item["ARN"],
        "hasSecretStringWo": False,
    }
    if "SecretString" in item:
        found["secretString"] = item["SecretString"]
    return found


def _set_stages(change: Change) -> None:
    if not change.old:
        return
    parts = _version_parts(change.id)
    wanted, actual = set(change.new.get("versionStages") or {_CURRENT}), set(change.old.get("versionStages") or ())
    described = change.cloud.call(_SERVICE, "DescribeSecret", SecretId=parts["SecretId"]).get("VersionIdsToStages", {})
    for stage in sorted(wanted - actual):
        holder = next((version for version, stages in described.items() if stage in stages), None)
        change.cloud.call(
            _SERVICE,
            "UpdateSecretVersionStage",
            SecretId=parts["SecretId"],
            VersionStage=stage,
            MoveToVersionId=parts["VersionId"],
            RemoveFromVersionId=holder,
        )
    for stage in sorted(actual - wanted - {_CURRENT}):
        change.cloud.call(
            _SERVICE,
            "UpdateSecretVersionStage",
            SecretId=parts["SecretId"],
            VersionStage=stage,
            RemoveFromVersionId=parts["VersionId"],
        )


def _delete_version(cloud: Cloud, resource_id: str, _state: Values) -> None:
    # A secret cannot lose its current version: as with the official provider, it goes with the secret.
    found = _find_version(cloud, resource_id, {})
    parts = _version_parts(resource_id)
    for stage in (found or {}).get("VersionStages", []):
        if stage != _CURRENT:
            cloud.call(
                _SERVICE,
                "UpdateSecretVersionStage",
                SecretId=parts["SecretId"],
                VersionStage=stage,
                RemoveFromVersionId=parts["VersionId"],
            )


_WRITE_ONLY = "write-only properties need a Terraform-style plan: give secretString, which is kept encrypted"

KINDS = (
    Kind(
        pulumi_type="aws:secretsmanager/secret:Secret",
        service=_SERVICE,
        create="CreateSecret",
        update="UpdateSecret",
        read="DescribeSecret",
        at="",
        key="SecretId",
        id=lambda _inputs, made: str(made["ARN"]),
        deleter=_delete_secret,
        alive=lambda item: not item.get("DeletedDate"),
        reads="arn name",
        imports="name description kmsKeyId",
        naming=Naming(limit=512),
        state_only=frozenset({"recoveryWindowInDays"}),
        defaults={"recoveryWindowInDays": 30, "forceOverwriteReplicaSecret": False},
        replaces=frozenset({"name"}),
        vanishing=frozenset({"description", "kmsKeyId"}),
        settings=(Setting(properties=("policy",), apply=_set_policy),),
        unsupported={
            "replicas": "the embedded cloud does not replicate secrets",
            "type": "managed external secrets are not in the embedded cloud",
        },
        renames={"forceOverwriteReplicaSecret": "ForceOverwriteReplicaSecret"},
        outputs=_secret_outputs,
        tagging=calls(_SERVICE, target=lambda arn, _state: {"SecretId": arn}),
    ),
    Kind(
        pulumi_type="aws:secretsmanager/secretVersion:SecretVersion",
        service=_SERVICE,
        create="PutSecretValue",
        read="GetSecretValue",
        at="",
        key="SecretId",
        id=lambda _inputs, made: f"{made['ARN']}|{made['VersionId']}",
        find=_find_version,
        deleter=_delete_version,
        reads="arn secretArn versionId versionStages hasSecretStringWo",
        imports="secretString secretBinary",
        secrets=frozenset({"secretString", "secretBinary", "secretStringWo"}),
        settings=(Setting(properties=("versionStages",), apply=_set_stages),),
        unsupported={"secretStringWo": _WRITE_ONLY, "secretStringWoVersion": _WRITE_ONLY},
        outputs=_version_outputs,
        import_key=lambda rid: {"secretId": rid.partition("|")[0]},
    ),
)
