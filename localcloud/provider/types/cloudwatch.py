"""CloudWatch Logs: log groups."""

from __future__ import annotations

from localcloud.provider.calls import Cloud
from localcloud.provider.kind import Change, Item, Kind, Setting
from localcloud.provider.naming import Naming
from localcloud.provider.tags import calls
from localcloud.provider.values import Values

_SERVICE = "logs"


def _find(cloud: Cloud, name: str, _state: Values) -> Item | None:
    groups = cloud.pages(_SERVICE, "DescribeLogGroups", "logGroups", logGroupNamePrefix=name)
    return next((group for group in groups if group["logGroupName"] == name), None)


def _set_retention(change: Change) -> None:
    days = change.new.get("retentionInDays")
    if days:
        change.cloud.call(_SERVICE, "PutRetentionPolicy", logGroupName=change.id, retentionInDays=days)
    elif change.old.get("retentionInDays"):
        change.cloud.call(_SERVICE, "DeleteRetentionPolicy", logGroupName=change.id)


def _set_key(change: Change) -> None:
    key = change.new.get("kmsKeyId")
    if not change.old:
        return  # CreateLogGroup took it
    if key:
        change.cloud.call(_SERVICE, "AssociateKmsKey", logGroupName=change.id, kmsKeyId=key)
    else:
        change.cloud.call(_SERVICE, "DisassociateKmsKey", logGroupName=change.id)


def _outputs(_cloud: Cloud, _name: str, item: Item, state: Values) -> Values:
    arn = item["arn"].removesuffix(":*")
    return {
        "arn": arn,
        "name": item["logGroupName"],
        "retentionInDays": item.get("retentionInDays", 0),
        "kmsKeyId": item.get("kmsKeyId"),
        "logGroupClass": item.get("logGroupClass") or state.get("logGroupClass") or "STANDARD",
    }


def _delete(cloud: Cloud, name: str, state: Values) -> None:
    if not state.get("skipDestroy"):
        cloud.call(_SERVICE, "DeleteLogGroup", logGroupName=name)


KINDS = (
    Kind(
        pulumi_type="aws:cloudwatch/logGroup:LogGroup",
        service=_SERVICE,
        create="CreateLogGroup",
        read="DescribeLogGroups",
        at="logGroups[]",
        key="logGroupName",
        id=lambda inputs, _made: str(inputs["name"]),
        find=_find,
        deleter=_delete,
        nouns=("loggroup",),
        reads="arn logGroupClass",
        imports="retentionInDays kmsKeyId logGroupClass",
        naming=Naming(limit=512),
        state_only=frozenset({"skipDestroy"}),
        defaults={"skipDestroy": False},
        settings=(
            Setting(properties=("retentionInDays",), apply=_set_retention),
            Setting(properties=("kmsKeyId",), apply=_set_key),
        ),
        unsupported={"deletionProtectionEnabled": "the embedded cloud does not enforce it for log groups"},
        outputs=_outputs,
        tagging=calls(
            _SERVICE,
            target=lambda _name, state: {"resourceArn": state["arn"]},
            listing=("ListTagsForResource", "tags"),
            member="tags",
            keys="tagKeys",
            mapped=True,
        ),
        import_key=lambda name: {"name": name},
    ),
)
