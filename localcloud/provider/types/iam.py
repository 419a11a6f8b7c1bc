"""IAM: roles, their inline policies, and the roles that AWS services own."""

from __future__ import annotations

import json
from dataclasses import replace

from localcloud.provider.calls import Cloud
from localcloud.provider.equality import same
from localcloud.provider.kind import Change, Item, Kind, Setting
from localcloud.provider.naming import Naming
from localcloud.provider.tags import calls
from localcloud.provider.values import Values

_SERVICE = "iam"


def _attached(cloud: Cloud, role: str) -> list[str]:
    found = cloud.pages(_SERVICE, "ListAttachedRolePolicies", "AttachedPolicies", RoleName=role)
    return [str(policy["PolicyArn"]) for policy in found]


def _inline_names(cloud: Cloud, role: str) -> list[str]:
    names: list[str] = list(cloud.call(_SERVICE, "ListRolePolicies", RoleName=role).get("PolicyNames", []))
    return names


def _document(value: object) -> str:

    # botocore decodes policy documents into dictionaries
    return value if isinstance(value, str) else json.dumps(value)


def _set_attached(change: Change) -> None:
    wanted = set(change.new.get("managedPolicyArns") or ())
    actual = set(_attached(change.cloud, change.id))
    for arn in sorted(wanted - actual):
        change.cloud.call(_SERVICE, "AttachRolePolicy", RoleName=change.id, PolicyArn=arn)
    for arn in sorted(actual - wanted):
        change.cloud.call(_SERVICE, "DetachRolePolicy", RoleName=change.id, PolicyArn=arn)


def _set_inline(change: Change) -> None:
    wanted = {
        policy["name"]: policy["policy"] for policy in change.new.get("inlinePolicies") or () if policy.get("name")
    }
    for name, policy in wanted.items():
        change.cloud.call(_SERVICE, "PutRolePolicy", RoleName=change.id, PolicyName=name, PolicyDocument=policy)
    for name in set(_inline_names(change.cloud, change.id)) - set(wanted):
        change.cloud.call(_SERVICE, "DeleteRolePolicy", RoleName=change.id, PolicyName=name)


def _set_trust(change: Change) -> None:
    if change.old:
        document = change.new["assumeRolePolicy"]
        change.cloud.call(_SERVICE, "UpdateAssumeRolePolicy", RoleName=change.id, PolicyDocument=document)


def _set_boundary(change: Change) -> None:
    boundary = change.new.get("permissionsBoundary")
    if boundary and change.old:
        change.cloud.call(_SERVICE, "PutRolePermissionsBoundary", RoleName=change.id, PermissionsBoundary=boundary)
    elif change.old.get("permissionsBoundary"):
        change.cloud.call(_SERVICE, "DeleteRolePermissionsBoundary", RoleName=change.id)


def _role_outputs(cloud: Cloud, role: str, item: Item, state: Values) -> Values:
    trust = _document(item["AssumeRolePolicyDocument"])
    declared = state.get("assumeRolePolicy")
    found: Values = {
        "arn": item["Arn"],
        "uniqueId": item["RoleId"],
        "assumeRolePolicy": declared if same(trust, declared) else trust,
        "managedPolicyArns": sorted(_attached(cloud, role)),
    }
    boundary = (item.get("PermissionsBoundary") or {}).get("PermissionsBoundaryArn")
    found["permissionsBoundary"] = boundary
    if "inlinePolicies" in state:
        wanted = {policy.get("name"): policy.get("policy") for policy in state["inlinePolicies"]}
        inline = []
        for name in _inline_names(cloud, role):
            answer = cloud.call(_SERVICE, "GetRolePolicy", RoleName=role, PolicyName=name)
            text = _document(answer["PolicyDocument"])
            inline.append({"name": name, "policy": wanted[name] if same(text, wanted.get(name)) else text})
        found["inlinePolicies"] = inline
    return found


def _delete_role(cloud: Cloud, role: str, state: Values) -> None:
    for arn in _attached(cloud, role):
        if state.get("forceDetachPolicies") or arn in (state.get("managedPolicyArns") or ()):
            cloud.call(_SERVICE, "DetachRolePolicy", RoleName=role, PolicyArn=arn)
    declared = {policy.get("name") for policy in state.get("inlinePolicies") or ()}
    for name in _inline_names(cloud, role):
        if state.get("forceDetachPolicies") or name in declared:
            cloud.call(_SERVICE, "DeleteRolePolicy", RoleName=role, PolicyName=name)
    cloud.call(_SERVICE, "DeleteRole", RoleName=role)


def _policy_parts(resource_id: str) -> dict[str, str]:
    role, _, name = resource_id.partition(":")
    return {"RoleName": role, "PolicyName": name}


def _find_policy(cloud: Cloud, resource_id: str, _state: Values) -> Item | None:
    answer = cloud.look(_SERVICE, "GetRolePolicy", **_policy_parts(resource_id))
    return None if answer is None else {**answer, "PolicyDocument": _document(answer["PolicyDocument"])}


def _delete_policy(cloud: Cloud, resource_id: str, _state: Values) -> None:
    cloud.call(_SERVICE, "DeleteRolePolicy", **_policy_parts(resource_id))


def _role_of(arn: str) -> str:
    return arn.rsplit("/", 1)[-1]


def _find_linked(cloud: Cloud, arn: str, _state: Values) -> Item | None:
    return (cloud.look(_SERVICE, "GetRole", RoleName=_role_of(arn)) or {}).get("Role")


def _linked_outputs(_cloud: Cloud, _arn: str, item: Item, state: Values) -> Values:
    # The path says which service owns the role: /aws-service-role/rds.amazonaws.com/
    owner = item.get("Path", "").strip("/").rpartition("/")[2]
    return {
        "arn": item["Arn"],
        "uniqueId": item["RoleId"],
        "name": item["RoleName"],
        "path": item.get("Path"),
        "createDate": item.get("CreateDate"),
        "awsServiceName": state.get("awsServiceName") or owner,
    }


def _set_linked_description(change: Change) -> None:
    if change.old:
        text = change.new.get("description", "")
        change.cloud.call(_SERVICE, "UpdateRole", RoleName=_role_of(change.id), Description=text)


def _delete_linked(cloud: Cloud, arn: str, _state: Values) -> None:
    cloud.call(_SERVICE, "DeleteServiceLinkedRole", RoleName=_role_of(arn))


KINDS = (
    Kind(
        pulumi_type="aws:iam/role:Role",
        service=_SERVICE,
        create="CreateRole",
        update="UpdateRole",
        read="GetRole",
        at="Role",
        key="RoleName",
        id=lambda inputs, _made: str(inputs["name"]),
        deleter=_delete_role,
        nouns=("role",),
        renames={"assumeRolePolicy": "AssumeRolePolicyDocument"},
        regional=False,
        reads="arn createDate uniqueId managedPolicyArns path maxSessionDuration",
        imports="assumeRolePolicy description path maxSessionDuration permissionsBoundary",
        naming=Naming(limit=64),
        state_only=frozenset({"forceDetachPolicies"}),
        defaults={"forceDetachPolicies": False, "maxSessionDuration": 3600, "path": "/"},
        vanishing=frozenset({"description", "permissionsBoundary"}),
        settings=(
            Setting(properties=("managedPolicyArns",), apply=_set_attached),
            Setting(properties=("inlinePolicies",), apply=_set_inline),
            Setting(properties=("assumeRolePolicy",), apply=_set_trust),
            Setting(properties=("permissionsBoundary",), apply=_set_boundary),
        ),
        outputs=_role_outputs,
        tagging=calls(
            _SERVICE,
            target=lambda role, _state: {"RoleName": role},
            add="TagRole",
            remove="UntagRole",
            listing=("ListRoleTags", "Tags"),
        ),
        import_key=lambda role: {"name": role},
    ),
    Kind(
        pulumi_type="aws:iam/rolePolicy:RolePolicy",
        service=_SERVICE,
        create="PutRolePolicy",
        update="PutRolePolicy",
        read="GetRolePolicy",
        at="",
        key="RoleName",
        id=lambda inputs, _made: f"{inputs['role']}:{inputs['name']}",
        find=_find_policy,
        deleter=_delete_policy,
        renames={"name": "PolicyName", "policy": "PolicyDocument", "role": "RoleName"},
        regional=False,
        imports="policy",
        naming=Naming(limit=128),
        replaces=frozenset({"name"}),
        import_key=lambda rid: {"role": rid.partition(":")[0], "name": rid.partition(":")[2]},
    ),
    Kind(
        pulumi_type="aws:iam/serviceLinkedRole:ServiceLinkedRole",
        service=_SERVICE,
        create="CreateServiceLinkedRole",
        read="GetRole",
        at="Role",
        key="RoleName",
        id=lambda _inputs, made: str(made["Role"]["Arn"]),
        find=_find_linked,
        deleter=_delete_linked,
        renames={"awsServiceName": "AWSServiceName"},
        regional=False,
        reads="arn createDate name path uniqueId",
        imports="awsServiceName description",
        settings=(Setting(properties=("description",), apply=_set_linked_description),),
        outputs=_linked_outputs,
        tagging=replace(
            calls(
                _SERVICE,
                target=lambda arn, _state: {"RoleName": _role_of(arn)},
                add="TagRole",
                remove="UntagRole",
                listing=("ListRoleTags", "Tags"),
            ),
            create=None,  # CreateServiceLinkedRole takes no tags
        ),
    ),
)
