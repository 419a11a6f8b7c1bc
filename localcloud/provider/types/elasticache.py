"""ElastiCache: replication groups and the subnets that they live in."""

from __future__ import annotations

from localcloud.provider.calls import Cloud
from localcloud.provider.kind import Change, Item, Kind, Setting
from localcloud.provider.naming import Naming
from localcloud.provider.tags import calls
from localcloud.provider.values import Values

_SERVICE = "elasticache"
_TAGS = calls(
    _SERVICE,
    target=lambda _id, state: {"ResourceName": state["arn"]},
    add="AddTagsToResource",
    remove="RemoveTagsFromResource",
    listing=("ListTagsForResource", "TagList"),
)


def _members(cloud: Cloud, item: Item) -> list[Item]:
    found: list[Item] = []
    for name in item.get("MemberClusters") or []:
        answer = cloud.look(_SERVICE, "DescribeCacheClusters", CacheClusterId=name) or {}
        found += answer.get("CacheClusters") or []
    return found


def _on(value: object) -> bool:
    return str(value).lower() in {"enabled", "enabling", "true"}


def _outputs(cloud: Cloud, group: str, item: Item, state: Values) -> Values:
    node = (item.get("NodeGroups") or [{}])[0]
    primary, reader = node.get("PrimaryEndpoint") or {}, node.get("ReaderEndpoint") or {}
    whole = item.get("ConfigurationEndpoint") or {}
    members = _members(cloud, item)
    first = members[0] if members else {}
    version = str(first.get("EngineVersion") or state.get("engineVersion") or "")
    declared = str(state.get("engineVersion") or "")
    short = declared and (version == declared or version.startswith(f"{declared.removesuffix('.x')}."))
    found: Values = {
        "arn": item.get("ARN"),
        "replicationGroupId": group,
        "description": item.get("Description"),
        "primaryEndpointAddress": primary.get("Address"),
        "readerEndpointAddress": reader.get("Address"),
        "configurationEndpointAddress": whole.get("Address"),
        "port": primary.get("Port") or whole.get("Port") or state.get("port"),
        "memberClusters": sorted(item.get("MemberClusters") or []),
        "clusterEnabled": bool(item.get("ClusterEnabled", False)),
        "engine": item.get("Engine") or first.get("Engine") or state.get("engine") or "redis",
        "engineVersion": declared if short else version or None,
        "engineVersionActual": version or None,
        "parameterGroupName": (first.get("CacheParameterGroup") or {}).get("CacheParameterGroupName")
        or state.get("parameterGroupName"),
        "subnetGroupName": first.get("CacheSubnetGroupName") or state.get("subnetGroupName"),
        "automaticFailoverEnabled": _on(item.get("AutomaticFailover")),
        "multiAzEnabled": _on(item.get("MultiAZ")),
        "numNodeGroups": state.get("numNodeGroups") or len(item.get("NodeGroups") or []) or 1,
    }
    groups = [g["SecurityGroupId"] for g in first.get("SecurityGroups") or [] if g.get("SecurityGroupId")]
    if groups:
        found["securityGroupIds"] = sorted(groups)
    if "numCacheClusters" not in state and "replicasPerNodeGroup" not in state:
        found["numCacheClusters"] = len(found["memberClusters"]) or None
    return {name: value for name, value in found.items() if value is not None}


def _set_token(change: Change) -> None:
    token = change.new.get("authToken")
    strategy = str(change.new.get("authTokenUpdateStrategy") or "ROTATE")
    if change.old and (change.changed("authToken") or change.changed("authTokenUpdateStrategy")):
        if not token:
            strategy = "DELETE"
        change.cloud.call(
            _SERVICE,
            "ModifyReplicationGroup",
            ReplicationGroupId=change.id,
            AuthToken=token,
            AuthTokenUpdateStrategy=strategy,
            ApplyImmediately=True,
        )


def _set_count(change: Change) -> None:
    if not change.old or not change.changed("numCacheClusters"):
        return
    before, after = int(change.old.get("numCacheClusters") or 1), int(change.new.get("numCacheClusters") or 1)
    operation = "IncreaseReplicaCount" if after > before else "DecreaseReplicaCount"
    change.cloud.call(
        _SERVICE, operation, ReplicationGroupId=change.id, NewReplicaCount=after - 1, ApplyImmediately=True
    )


def _delete(cloud: Cloud, group: str, state: Values) -> None:
    last = state.get("finalSnapshotIdentifier")
    cloud.call(_SERVICE, "DeleteReplicationGroup", ReplicationGroupId=group, FinalSnapshotIdentifier=last)
    cloud.wait(_SERVICE, "replication_group_deleted", ReplicationGroupId=group)


def _group_outputs(_cloud: Cloud, _name: str, item: Item, _state: Values) -> Values:
    return {
        "subnetIds": sorted(subnet["SubnetIdentifier"] for subnet in item.get("Subnets") or []),
        "vpcId": item.get("VpcId"),
    }


_WRITE_ONLY = "write-only properties need a Terraform-style plan: give authToken, which is kept encrypted"

KINDS = (
    Kind(
        pulumi_type="aws:elasticache/replicationGroup:ReplicationGroup",
        service=_SERVICE,
        create="CreateReplicationGroup",
        update="ModifyReplicationGroup",
        read="DescribeReplicationGroups",
        at="ReplicationGroups[]",
        key="ReplicationGroupId",
        id=lambda inputs, _made: str(inputs["replicationGroupId"]),
        ready=lambda cloud, group, _values: cloud.wait(
            _SERVICE, "replication_group_available", ReplicationGroupId=group
        ),
        deleter=_delete,
        alive=lambda item: item.get("Status") != "deleting",
        nouns=("replicationgroup", "cache", "cachecluster"),
        renames={"preferredCacheClusterAzs": "PreferredCacheClusterAZs"},
        reads="arn clusterEnabled configurationEndpointAddress engineVersionActual memberClusters "
        "primaryEndpointAddress readerEndpointAddress port engine engineVersion parameterGroupName "
        "subnetGroupName securityGroupIds numCacheClusters numNodeGroups automaticFailoverEnabled "
        "multiAzEnabled nodeType atRestEncryptionEnabled transitEncryptionEnabled snapshotWindow "
        "snapshotRetentionLimit maintenanceWindow",
        imports="description nodeType replicationGroupId engine automaticFailoverEnabled atRestEncryptionEnabled "
        "transitEncryptionEnabled subnetGroupName",
        naming=Naming(property="replicationGroupId", prefix_property=None, limit=40, lower=True),
        # maintenance windows never come on an embedded cloud: every change is applied at once
        state_only=frozenset({"applyImmediately", "finalSnapshotIdentifier"}),
        fixed_update={"ApplyImmediately": True},
        replaces=frozenset({"engine", "transitEncryptionEnabled", "replicationGroupId"}),
        secrets=frozenset({"authToken", "authTokenWo"}),
        settings=(
            Setting(properties=("authToken", "authTokenUpdateStrategy"), apply=_set_token),
            Setting(properties=("numCacheClusters",), apply=_set_count),
        ),
        unsupported={
            "authTokenWo": _WRITE_ONLY,
            "authTokenWoVersion": _WRITE_ONLY,
            "nodeGroupConfigurations": "the embedded cloud has one node group for each replication group",
            "securityGroupNames": "the embedded cloud has no EC2-Classic: use securityGroupIds",
            "userGroupIds": "the embedded cloud knows one password, authToken, and no users",
            "logDeliveryConfigurations": "the embedded cloud's caches write no logs",
            "durability": "the embedded cloud does not keep it",
        },
        comparators={"engineVersion": lambda new, old: str(old).startswith(str(new).removesuffix(".x"))},
        outputs=_outputs,
        tagging=_TAGS,
    ),
    Kind(
        pulumi_type="aws:elasticache/subnetGroup:SubnetGroup",
        service=_SERVICE,
        create="CreateCacheSubnetGroup",
        update="ModifyCacheSubnetGroup",
        read="DescribeCacheSubnetGroups",
        at="CacheSubnetGroups[]",
        key="CacheSubnetGroupName",
        id=lambda inputs, _made: str(inputs["name"]),
        delete="DeleteCacheSubnetGroup",
        nouns=("cachesubnetgroup",),
        reads="arn vpcId",
        imports="description subnetIds",
        naming=Naming(limit=255, lower=True, prefix_property=None),
        initial={"description": "Managed by Pulumi"},
        outputs=_group_outputs,
        tagging=_TAGS,
        import_key=lambda name: {"name": name},
    ),
)
