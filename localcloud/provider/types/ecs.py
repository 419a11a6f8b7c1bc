"""ECS: clusters and task definitions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from localcloud.provider.calls import Cloud
from localcloud.provider.equality import parsed, same
from localcloud.provider.kind import Item, Kind
from localcloud.provider.naming import Naming
from localcloud.provider.tags import Tagging, calls
from localcloud.provider.values import Values

_SERVICE = "ecs"


def _tagging() -> Tagging:
    return calls(
        _SERVICE,
        target=lambda _id, state: {"resourceArn": state["arn"]},
        listing=("ListTagsForResource", "tags"),
        member="tags",
        keys="tagKeys",
        names=("key", "value"),
    )


def _find_cluster(cloud: Cloud, cluster: str, _state: Values) -> Item | None:
    answer = cloud.look(_SERVICE, "DescribeClusters", clusters=[cluster], include=["SETTINGS", "CONFIGURATIONS"]) or {}
    found = answer.get("clusters") or []
    return found[0] if found and found[0].get("status") == "ACTIVE" else None


# What ECS fills in by itself when it registers a container.
_CONTAINER_DEFAULTS: dict[str, Any] = {"essential": True, "cpu": 0}


def _plain_container(container: Mapping[str, Any]) -> dict[str, Any]:
    """Return a container without what ECS fills in, and with its sets in one order (a command keeps its own)."""
    result: dict[str, Any] = {}
    for name, value in container.items():
        if value in (None, [], {}, "") or _CONTAINER_DEFAULTS.get(name) == value:
            continue
        if name in {"environment", "secrets"}:
            result[name] = sorted(value, key=lambda pair: str(pair.get("name")))
        elif name == "portMappings":
            result[name] = [_plain_port(port) for port in value]
        else:
            result[name] = value
    return result


def _plain_port(port: Mapping[str, Any]) -> dict[str, Any]:
    plain = {name: value for name, value in port.items() if value not in (None, 0, "")}
    if plain.get("hostPort") == plain.get("containerPort"):
        plain.pop("hostPort", None)  # in awsvpc mode they are the same
    if plain.get("protocol") == "tcp":
        plain.pop("protocol")
    return plain


def same_containers(new: Any, old: Any) -> bool:
    """Whether two JSON texts define the same containers."""
    left, right = parsed(str(new)), parsed(str(old))
    if not isinstance(left, list) or not isinstance(right, list):
        return same(new, old)
    return [_plain_container(c) for c in left] == [_plain_container(c) for c in right]


def _find_definition(cloud: Cloud, family: str, state: Values) -> Item | None:
    # Without an ARN (import) the newest active revision of the family is meant.
    name = state.get("arn") or family
    found = (cloud.look(_SERVICE, "DescribeTaskDefinition", taskDefinition=name) or {}).get("taskDefinition")
    return found if found and found.get("status") == "ACTIVE" else None


def _register(cloud: Cloud, _inputs: Values, given: Item) -> Item:
    made: Item = cloud.call(_SERVICE, "RegisterTaskDefinition", **given)["taskDefinition"]
    return made


def _definition_outputs(_cloud: Cloud, _family: str, item: Item, state: Values) -> Values:
    arn = item["taskDefinitionArn"]
    actual = json.dumps(item.get("containerDefinitions", []))
    declared = state.get("containerDefinitions")
    return {
        "arn": arn,
        "arnWithoutRevision": arn.rpartition(":")[0],
        "revision": item["revision"],
        "family": item["family"],
        "containerDefinitions": declared if declared and same_containers(declared, actual) else actual,
    }


def _deregister(cloud: Cloud, _family: str, state: Values) -> None:
    if not state.get("skipDestroy"):
        cloud.call(_SERVICE, "DeregisterTaskDefinition", taskDefinition=state["arn"])


KINDS = (
    Kind(
        pulumi_type="aws:ecs/cluster:Cluster",
        service=_SERVICE,
        create="CreateCluster",
        update="UpdateCluster",
        read="DescribeClusters",
        at="clusters[]",
        key="cluster",
        id=lambda _inputs, made: str(made["cluster"]["clusterArn"]),
        find=_find_cluster,
        delete="DeleteCluster",
        nouns=("cluster",),
        replaces=frozenset({"name"}),
        reads="arn name settings",
        imports="name settings",
        naming=Naming(limit=255, prefix_property=None),
        tagging=_tagging(),
    ),
    Kind(
        pulumi_type="aws:ecs/taskDefinition:TaskDefinition",
        service=_SERVICE,
        create="RegisterTaskDefinition",
        creator=_register,
        read="DescribeTaskDefinition",
        at="taskDefinition",
        key="taskDefinition",
        id=lambda inputs, _made: str(inputs["family"]),
        find=_find_definition,
        deleter=_deregister,
        reads="arn arnWithoutRevision revision networkMode",
        imports="family containerDefinitions cpu memory networkMode executionRoleArn taskRoleArn "
        "requiresCompatibilities",
        state_only=frozenset({"skipDestroy", "trackLatest"}),
        defaults={"skipDestroy": False, "trackLatest": False},
        comparators={"containerDefinitions": same_containers},
        outputs=_definition_outputs,
        tagging=_tagging(),
    ),
)
