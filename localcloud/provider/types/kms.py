"""KMS: keys and their aliases."""

from __future__ import annotations

from localcloud.provider.calls import Cloud
from localcloud.provider.kind import Change, Item, Kind, Setting
from localcloud.provider.naming import Naming
from localcloud.provider.tags import calls
from localcloud.provider.values import Values

_SERVICE = "kms"
_POLICY = "default"  # the one name that a key's policy can have


def _set_policy(change: Change) -> None:
    policy = change.new.get("policy")
    if policy is not None and change.old:
        lockout = change.new.get("bypassPolicyLockoutSafetyCheck")
        change.cloud.call(
            _SERVICE,
            "PutKeyPolicy",
            KeyId=change.id,
            PolicyName=_POLICY,
            Policy=policy,
            BypassPolicyLockoutSafetyCheck=lockout,
        )


def _set_rotation(change: Change) -> None:
    if change.new.get("enableKeyRotation"):
        period = change.new.get("rotationPeriodInDays")
        change.cloud.call(_SERVICE, "EnableKeyRotation", KeyId=change.id, RotationPeriodInDays=period)
    elif change.old.get("enableKeyRotation"):
        change.cloud.call(_SERVICE, "DisableKeyRotation", KeyId=change.id)


def _set_enabled(change: Change) -> None:
    enabled = change.new.get("isEnabled", True)
    if enabled is not change.old.get("isEnabled", True):
        change.cloud.call(_SERVICE, "EnableKey" if enabled else "DisableKey", KeyId=change.id)


def _set_description(change: Change) -> None:
    if change.old:
        change.cloud.call(
            _SERVICE, "UpdateKeyDescription", KeyId=change.id, Description=change.new.get("description", "")
        )


def _key_outputs(cloud: Cloud, key: str, item: Item, state: Values) -> Values:
    rotation = cloud.look(_SERVICE, "GetKeyRotationStatus", KeyId=key) or {}
    found: Values = {
        "policy": (cloud.look(_SERVICE, "GetKeyPolicy", KeyId=key, PolicyName=_POLICY) or {}).get("Policy"),
        "isEnabled": item.get("Enabled", True),
        "enableKeyRotation": rotation.get("KeyRotationEnabled", False),
        "customerMasterKeySpec": item.get("KeySpec") or item.get("CustomerMasterKeySpec"),
    }
    if found["enableKeyRotation"]:
        found["rotationPeriodInDays"] = rotation.get("RotationPeriodInDays") or state.get("rotationPeriodInDays")
    return found


def _delete_key(cloud: Cloud, key: str, state: Values) -> None:
    # A KMS key is never deleted at once: the call starts a waiting period, 30 days unless the program says otherwise.
    days = state.get("deletionWindowInDays") or 30
    cloud.call(_SERVICE, "ScheduleKeyDeletion", KeyId=key, PendingWindowInDays=days)


def _find_alias(cloud: Cloud, name: str, _state: Values) -> Item | None:
    return next((item for item in cloud.pages(_SERVICE, "ListAliases", "Aliases") if item["AliasName"] == name), None)


def _alias_outputs(cloud: Cloud, _name: str, item: Item, state: Values) -> Values:
    key = item.get("TargetKeyId", "")
    arn = (cloud.look(_SERVICE, "DescribeKey", KeyId=key) or {}).get("KeyMetadata", {}).get("Arn") if key else None
    declared = state.get("targetKeyId")
    return {
        "arn": item.get("AliasArn"),
        "targetKeyArn": arn,
        # the program may name the key by its id or its ARN
        "targetKeyId": declared if declared in {key, arn} else key,
    }


KINDS = (
    Kind(
        pulumi_type="aws:kms/key:Key",
        service=_SERVICE,
        create="CreateKey",
        read="DescribeKey",
        at="KeyMetadata",
        key="KeyId",
        id=lambda _inputs, made: str(made["KeyMetadata"]["KeyId"]),
        deleter=_delete_key,
        alive=lambda item: item.get("KeyState") not in {"PendingDeletion", "PendingReplicaDeletion"},
        renames={"customerMasterKeySpec": "KeySpec"},
        reads="arn keyId keyUsage multiRegion description policy customerMasterKeySpec isEnabled",
        imports="description keyUsage multiRegion policy enableKeyRotation rotationPeriodInDays isEnabled",
        state_only=frozenset({"deletionWindowInDays"}),
        defaults={"enableKeyRotation": False, "bypassPolicyLockoutSafetyCheck": False},
        settings=(
            Setting(properties=("policy", "bypassPolicyLockoutSafetyCheck"), apply=_set_policy),
            Setting(properties=("enableKeyRotation", "rotationPeriodInDays"), apply=_set_rotation),
            Setting(properties=("isEnabled",), apply=_set_enabled),
            Setting(properties=("description",), apply=_set_description),
        ),
        outputs=_key_outputs,
        tagging=calls(
            _SERVICE,
            target=lambda key, _state: {"KeyId": key},
            listing=("ListResourceTags", "Tags"),
            names=("TagKey", "TagValue"),
        ),
    ),
    Kind(
        pulumi_type="aws:kms/alias:Alias",
        service=_SERVICE,
        create="CreateAlias",
        update="UpdateAlias",
        read="ListAliases",
        at="Aliases[]",
        key="AliasName",
        id=lambda inputs, _made: str(inputs["name"]),
        delete="DeleteAlias",
        find=_find_alias,
        nouns=("alias",),
        reads="arn targetKeyArn",
        imports="targetKeyId",
        naming=Naming(limit=256, beginning="alias/"),
        outputs=_alias_outputs,
        import_key=lambda name: {"name": name},
    ),
)
