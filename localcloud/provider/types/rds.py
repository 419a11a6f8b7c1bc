"""RDS: databases, and the groups of subnets and of parameters that they use."""

from __future__ import annotations

from typing import Any

from localcloud.provider.calls import Cloud, input_shape
from localcloud.provider.errors import ProviderError
from localcloud.provider.kind import Change, Item, Kind, Setting
from localcloud.provider.matching import to_aws
from localcloud.provider.naming import Naming
from localcloud.provider.tags import Tagging, calls
from localcloud.provider.values import Values

_SERVICE = "rds"
_MANAGED = "Managed by Pulumi"
_PARAMETERS_PER_CALL = 20  # ModifyDBParameterGroup takes no more


def _tagging() -> Tagging:
    return calls(
        _SERVICE,
        target=lambda _id, state: {"ResourceName": state["arn"]},
        add="AddTagsToResource",
        remove="RemoveTagsFromResource",
        listing=("ListTagsForResource", "TagList"),
    )


_TAGS = _tagging()


def _find_instance(cloud: Cloud, resource_id: str, state: Values) -> Item | None:
    """Find a database by its identifier; by its resource id when only that is known (import)."""
    identifier = state.get("identifier")
    if identifier:
        answer = cloud.look(_SERVICE, "DescribeDBInstances", DBInstanceIdentifier=identifier)
        found = (answer or {}).get("DBInstances") or []
        return found[0] if found else None
    every = cloud.pages(_SERVICE, "DescribeDBInstances", "DBInstances")
    return next((i for i in every if resource_id in {i.get("DbiResourceId"), i["DBInstanceIdentifier"]}), None)


def _instance_outputs(_cloud: Cloud, _resource_id: str, item: Item, state: Values) -> Values:
    endpoint = item.get("Endpoint") or {}
    groups = item.get("DBParameterGroups") or [{}]
    options = item.get("OptionGroupMemberships") or [{}]
    actual = str(item.get("EngineVersion", ""))
    declared = str(state.get("engineVersion", ""))
    found: Values = {
        "identifier": item["DBInstanceIdentifier"],
        "address": endpoint.get("Address"),
        "port": endpoint.get("Port"),
        "hostedZoneId": endpoint.get("HostedZoneId"),
        "endpoint": f"{endpoint['Address']}:{endpoint['Port']}" if endpoint.get("Address") else None,
        "resourceId": item.get("DbiResourceId"),
        "dbSubnetGroupName": (item.get("DBSubnetGroup") or {}).get("DBSubnetGroupName"),
        "vpcSecurityGroupIds": sorted(g["VpcSecurityGroupId"] for g in item.get("VpcSecurityGroups") or []),
        "parameterGroupName": groups[0].get("DBParameterGroupName") or state.get("parameterGroupName"),
        "optionGroupName": options[0].get("OptionGroupName") or state.get("optionGroupName"),
        "engineVersionActual": actual,
        # `16` is a wish for any 16.x: the one that came is in engineVersionActual
        "engineVersion": declared if declared and (actual == declared or actual.startswith(f"{declared}.")) else actual,
        "masterUserSecrets": [],
    }
    secret = item.get("MasterUserSecret") or {}
    if secret.get("SecretArn"):
        names = {"secretArn": "SecretArn", "secretStatus": "SecretStatus", "kmsKeyId": "KmsKeyId"}
        found["masterUserSecrets"] = [{name: secret.get(member, "") for name, member in names.items()}]
    return found


def _delete_instance(cloud: Cloud, _resource_id: str, state: Values) -> None:
    identifier = state["identifier"]
    if state.get("skipFinalSnapshot"):
        last: Item = {"SkipFinalSnapshot": True}
    elif state.get("finalSnapshotIdentifier"):
        last = {"SkipFinalSnapshot": False, "FinalDBSnapshotIdentifier": state["finalSnapshotIdentifier"]}
    else:
        message = (
            f"database {identifier} cannot be deleted: finalSnapshotIdentifier is required unless skipFinalSnapshot "
            "is true; set one of them, run `pulumi up`, then destroy"
        )
        raise ProviderError(message)
    automated = bool(state.get("deleteAutomatedBackups", True))
    cloud.call(_SERVICE, "DeleteDBInstance", DBInstanceIdentifier=identifier, DeleteAutomatedBackups=automated, **last)
    cloud.wait(_SERVICE, "db_instance_deleted", DBInstanceIdentifier=identifier)


def _set_log_exports(change: Change) -> None:
    if change.old:
        wanted = set(change.new.get("enabledCloudwatchLogsExports") or ())
        actual = set(change.old.get("enabledCloudwatchLogsExports") or ())
        exports = {"EnableLogTypes": sorted(wanted - actual), "DisableLogTypes": sorted(actual - wanted)}
        change.cloud.call(
            _SERVICE,
            "ModifyDBInstance",
            DBInstanceIdentifier=change.new["identifier"],
            CloudwatchLogsExportConfiguration=exports,
        )


def _same_version(new: Any, old: Any) -> bool:
    return str(old) == str(new) or str(old).startswith(f"{new}.")


def _caseless(new: Any, old: Any) -> bool:
    return str(new).lower() == str(old).lower()


_RESTORES = "the embedded provider makes new databases only: restore with the AWS CLI, then import the database"
_WRITE_ONLY = "write-only properties need a Terraform-style plan: give password, which is kept encrypted"

INSTANCE = Kind(
    pulumi_type="aws:rds/instance:Instance",
    service=_SERVICE,
    create="CreateDBInstance",
    update="ModifyDBInstance",
    read="DescribeDBInstances",
    at="DBInstances[]",
    key="DBInstanceIdentifier",
    key_of=lambda _id, state: str(state["identifier"]),
    id=lambda _inputs, made: str(made["DBInstance"].get("DbiResourceId") or made["DBInstance"]["DBInstanceIdentifier"]),
    find=_find_instance,
    ready=lambda cloud, _id, values: cloud.wait(
        _SERVICE, "db_instance_available", DBInstanceIdentifier=values["identifier"]
    ),
    deleter=_delete_instance,
    nouns=("db", "dbinstance"),
    renames={"port": "DBPortNumber", "caCertIdentifier": "CACertificateIdentifier"},
    read_names={"port": "DbInstancePort", "status": "DBInstanceStatus"},
    reads="address arn endpoint engineVersionActual hostedZoneId masterUserSecrets resourceId status "
    "allocatedStorage autoMinorVersionUpgrade availabilityZone backupRetentionPeriod backupWindow "
    "caCertIdentifier dbName dbSubnetGroupName engine engineVersion identifier instanceClass iops "
    "kmsKeyId licenseModel maintenanceWindow multiAz networkType optionGroupName parameterGroupName port "
    "publiclyAccessible storageType storageThroughput username vpcSecurityGroupIds",
    imports="allocatedStorage dbName dbSubnetGroupName engine engineVersion identifier instanceClass "
    "parameterGroupName storageEncrypted username vpcSecurityGroupIds deletionProtection multiAz "
    "publiclyAccessible storageType",
    naming=Naming(property="identifier", prefix_property="identifierPrefix", limit=63, lower=True),
    state_only=frozenset(
        {
            # maintenance windows never come on an embedded cloud: every change is applied at once
            "applyImmediately",
            "skipFinalSnapshot",
            "finalSnapshotIdentifier",
            "deleteAutomatedBackups",
        }
    ),
    defaults={"applyImmediately": False, "skipFinalSnapshot": False, "deleteAutomatedBackups": True},
    fixed_update={"ApplyImmediately": True},
    replaces=frozenset({"engine", "identifier"}),
    secrets=frozenset({"password", "passwordWo"}),
    settings=(Setting(properties=("enabledCloudwatchLogsExports",), apply=_set_log_exports),),
    comparators={
        "engineVersion": _same_version,
        "backupWindow": _caseless,
        "maintenanceWindow": _caseless,
        "identifier": _caseless,
    },
    unsupported={
        **dict.fromkeys(("snapshotIdentifier", "restoreToPointInTime", "s3Import", "replicateSourceDb"), _RESTORES),
        **dict.fromkeys(("passwordWo", "passwordWoVersion"), _WRITE_ONLY),
        "replicaMode": _RESTORES,
        "blueGreenUpdate": "the embedded cloud has no blue/green deployments",
        "upgradeStorageConfig": "it belongs to read replicas, which the embedded provider does not make",
        "customIamInstanceProfile": "the embedded cloud has no RDS Custom",
        "warningEventCategories": "the embedded cloud raises no RDS events",
    },
    outputs=_instance_outputs,
    tagging=_TAGS,
)


def _group_outputs(_cloud: Cloud, _name: str, item: Item, _state: Values) -> Values:
    return {
        "subnetIds": sorted(subnet["SubnetIdentifier"] for subnet in item.get("Subnets") or []),
        "vpcId": item.get("VpcId"),
    }


SUBNET_GROUP = Kind(
    pulumi_type="aws:rds/subnetGroup:SubnetGroup",
    service=_SERVICE,
    create="CreateDBSubnetGroup",
    update="ModifyDBSubnetGroup",
    read="DescribeDBSubnetGroups",
    at="DBSubnetGroups[]",
    key="DBSubnetGroupName",
    id=lambda inputs, _made: str(inputs["name"]),
    delete="DeleteDBSubnetGroup",
    nouns=("dbsubnetgroup",),
    reads="arn supportedNetworkTypes vpcId",
    imports="description subnetIds",
    naming=Naming(limit=255, lower=True),
    initial={"description": _MANAGED},
    outputs=_group_outputs,
    tagging=_TAGS,
    import_key=lambda name: {"name": name},
)


def _request(parameter: Values) -> Item:
    shape = input_shape(_SERVICE, "ModifyDBParameterGroup", "Parameters[]")
    item: Item = to_aws(parameter, shape, "parameters")
    item.setdefault("ApplyMethod", "immediate")
    return item


def _set_parameters(change: Change) -> None:
    wanted = {p["name"]: _request(p) for p in change.new.get("parameters") or ()}
    before = {p["name"]: _request(p) for p in change.old.get("parameters") or ()}
    fresh = [item for name, item in sorted(wanted.items()) if before.get(name) != item]
    for start in range(0, len(fresh), _PARAMETERS_PER_CALL):
        part = fresh[start : start + _PARAMETERS_PER_CALL]
        change.cloud.call(_SERVICE, "ModifyDBParameterGroup", DBParameterGroupName=change.id, Parameters=part)
    gone = [
        {"ParameterName": name, "ApplyMethod": p["ApplyMethod"]} for name, p in before.items() if name not in wanted
    ]
    for start in range(0, len(gone), _PARAMETERS_PER_CALL):
        part = gone[start : start + _PARAMETERS_PER_CALL]
        change.cloud.call(
            _SERVICE, "ResetDBParameterGroup", DBParameterGroupName=change.id, ResetAllParameters=False, Parameters=part
        )


def _parameter_outputs(cloud: Cloud, name: str, _item: Item, state: Values) -> Values:
    declared = {p["name"]: p for p in state.get("parameters") or ()}
    actual = {
        p["ParameterName"]: p
        for p in cloud.pages(_SERVICE, "DescribeDBParameters", "Parameters", DBParameterGroupName=name)
        if p.get("Source", "user") == "user" and p.get("ParameterValue") is not None
    }
    found = []
    for key, item in {**dict.fromkeys(declared), **actual}.items():
        if item is None:
            continue  # reset behind the program's back
        value = str(item["ParameterValue"])
        wanted = declared.get(key)
        if wanted and str(wanted["value"]).lower() == value.lower():
            found.append(wanted)
        else:
            found.append({"name": key, "value": value, "applyMethod": item.get("ApplyMethod", "immediate")})
    return {"parameters": found} if found or declared else {}


def _delete_parameters(cloud: Cloud, name: str, state: Values) -> None:
    if not state.get("skipDestroy"):
        # A database that is just gone holds its group for a moment.
        cloud.retry({"InvalidDBParameterGroupState"}, _SERVICE, "DeleteDBParameterGroup", DBParameterGroupName=name)


PARAMETER_GROUP = Kind(
    pulumi_type="aws:rds/parameterGroup:ParameterGroup",
    service=_SERVICE,
    create="CreateDBParameterGroup",
    read="DescribeDBParameterGroups",
    at="DBParameterGroups[]",
    key="DBParameterGroupName",
    id=lambda inputs, _made: str(inputs["name"]),
    deleter=_delete_parameters,
    nouns=("dbparametergroup",),
    reads="arn",
    imports="family description",
    naming=Naming(limit=255, lower=True),
    initial={"description": _MANAGED},
    state_only=frozenset({"skipDestroy"}),
    defaults={"skipDestroy": False},
    settings=(Setting(properties=("parameters",), apply=_set_parameters),),
    outputs=_parameter_outputs,
    tagging=_TAGS,
    import_key=lambda name: {"name": name},
)

KINDS = (INSTANCE, SUBNET_GROUP, PARAMETER_GROUP)
