"""ECR: image repositories and what expires in them."""

from __future__ import annotations

from localcloud.provider.calls import Cloud
from localcloud.provider.kind import Change, Item, Kind, Setting
from localcloud.provider.naming import Naming
from localcloud.provider.tags import calls
from localcloud.provider.values import Values

_SERVICE = "ecr"


def _set_mutability(change: Change) -> None:
    if change.old:
        wanted = change.new.get("imageTagMutability", "MUTABLE")
        change.cloud.call(_SERVICE, "PutImageTagMutability", repositoryName=change.id, imageTagMutability=wanted)


def _set_scanning(change: Change) -> None:
    if change.old:
        scan = bool((change.new.get("imageScanningConfiguration") or {}).get("scanOnPush"))
        change.cloud.call(
            _SERVICE,
            "PutImageScanningConfiguration",
            repositoryName=change.id,
            imageScanningConfiguration={"scanOnPush": scan},
        )


def _repository_outputs(_cloud: Cloud, _name: str, item: Item, _state: Values) -> Values:
    return {"arn": item["repositoryArn"], "repositoryUrl": item["repositoryUri"], "registryId": item["registryId"]}


def _find_policy(cloud: Cloud, repository: str, _state: Values) -> Item | None:
    return cloud.look(_SERVICE, "GetLifecyclePolicy", repositoryName=repository)


def _delete(cloud: Cloud, name: str, state: Values) -> None:
    cloud.call(_SERVICE, "DeleteRepository", repositoryName=name, force=bool(state.get("forceDelete")))


KINDS = (
    Kind(
        pulumi_type="aws:ecr/repository:Repository",
        service=_SERVICE,
        create="CreateRepository",
        read="DescribeRepositories",
        at="repositories[]",
        key="repositoryNames",
        id=lambda inputs, _made: str(inputs["name"]),
        deleter=_delete,
        nouns=("repository",),
        reads="arn registryId repositoryUrl imageTagMutability encryptionConfigurations imageScanningConfiguration",
        imports="imageTagMutability imageScanningConfiguration",
        naming=Naming(limit=256, lower=True, prefix_property=None),
        state_only=frozenset({"forceDelete"}),
        defaults={"forceDelete": False},
        settings=(
            Setting(properties=("imageTagMutability",), apply=_set_mutability),
            Setting(properties=("imageScanningConfiguration",), apply=_set_scanning),
        ),
        unsupported={"imageTagMutabilityExclusionFilters": "the embedded cloud does not keep them"},
        outputs=_repository_outputs,
        tagging=calls(
            _SERVICE,
            target=lambda _name, state: {"resourceArn": state["arn"]},
            listing=("ListTagsForResource", "tags"),
            member="tags",
            keys="tagKeys",
        ),
        import_key=lambda name: {"name": name},
    ),
    Kind(
        pulumi_type="aws:ecr/lifecyclePolicy:LifecyclePolicy",
        service=_SERVICE,
        create="PutLifecyclePolicy",
        update="PutLifecyclePolicy",
        read="GetLifecyclePolicy",
        at="",
        key="repositoryName",
        id=lambda inputs, _made: str(inputs["repository"]),
        find=_find_policy,
        delete="DeleteLifecyclePolicy",
        renames={"policy": "lifecyclePolicyText", "repository": "repositoryName"},
        reads="registryId",
        imports="policy",
        import_key=lambda repository: {"repository": repository},
    ),
)
