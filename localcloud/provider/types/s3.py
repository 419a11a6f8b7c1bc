"""S3: the bucket, and the settings that pulumi-aws keeps as resources of their own."""

from __future__ import annotations

from typing import Any

from localcloud.provider.calls import Cloud
from localcloud.provider.errors import CallError, ProviderError
from localcloud.provider.kind import Item, Kind
from localcloud.provider.naming import Naming
from localcloud.provider.tags import Tagging, Tags, as_dict, as_list
from localcloud.provider.values import Values

_SERVICE = "s3"
# Route 53's zone ids of the S3 website endpoints, of the regions that the stacks use.
_ZONES = {
    "us-east-1": "Z3AQBSTGFYJSTF",
    "us-east-2": "Z2O1EMRO9K5GLX",
    "us-west-1": "Z2F56UZL2M1ACD",
    "us-west-2": "Z3BJ6K6RIION7M",
}
_OWN_RESOURCE = "AWS keeps it apart from the bucket: declare the resource {}"


def _read_tags(cloud: Cloud, bucket: str, _item: Item, _state: Values) -> Tags:
    return as_dict((cloud.look(_SERVICE, "GetBucketTagging", Bucket=bucket) or {}).get("TagSet"))


def _put_tags(cloud: Cloud, bucket: str, tags: Tags) -> None:
    if tags:
        cloud.call(_SERVICE, "PutBucketTagging", Bucket=bucket, Tagging={"TagSet": as_list(tags)})
    else:
        cloud.call(_SERVICE, "DeleteBucketTagging", Bucket=bucket)


def _add_tags(cloud: Cloud, bucket: str, _state: Values, tags: Tags) -> None:
    # S3 has no call that adds a tag: the set is written whole.
    _put_tags(cloud, bucket, {**_read_tags(cloud, bucket, {}, {}), **tags})


def _remove_tags(cloud: Cloud, bucket: str, _state: Values, names: list[str]) -> None:
    _put_tags(cloud, bucket, {k: v for k, v in _read_tags(cloud, bucket, {}, {}).items() if k not in names})


def _bucket_location(cloud: Cloud, _inputs: Values) -> Item:
    # us-east-1 is S3's unnamed region: naming it is an error
    return {} if cloud.region == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": cloud.region}}


def _bucket_outputs(cloud: Cloud, bucket: str, _item: Item, _state: Values) -> Values:
    found: Values = {
        "bucket": bucket,
        "arn": f"arn:aws:s3:::{bucket}",
        "bucketDomainName": f"{bucket}.s3.amazonaws.com",
        "bucketRegionalDomainName": f"{bucket}.s3.{cloud.region}.amazonaws.com",
        "bucketRegion": cloud.region,
    }
    if cloud.region in _ZONES:
        found["hostedZoneId"] = _ZONES[cloud.region]
    try:
        lock = cloud.look(_SERVICE, "GetObjectLockConfiguration", Bucket=bucket) or {}
    except CallError as exc:
        if exc.code != "InvalidRequest":
            raise
        lock = {}
    found["objectLockEnabled"] = lock.get("ObjectLockConfiguration", {}).get("ObjectLockEnabled") == "Enabled"
    return found


def _empty(cloud: Cloud, bucket: str) -> None:
    """Delete every version of every object, delete markers and unfinished uploads too."""
    for upload in cloud.pages(_SERVICE, "ListMultipartUploads", "Uploads", Bucket=bucket):
        cloud.call(_SERVICE, "AbortMultipartUpload", Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"])
    while True:
        page = cloud.call(_SERVICE, "ListObjectVersions", Bucket=bucket, MaxKeys=1000)
        found = [*page.get("Versions", []), *page.get("DeleteMarkers", [])]
        if not found:
            return
        doomed = [{"Key": item["Key"], "VersionId": item["VersionId"]} for item in found]
        answer = cloud.call(_SERVICE, "DeleteObjects", Bucket=bucket, Delete={"Objects": doomed, "Quiet": True})
        if answer.get("Errors"):
            first = answer["Errors"][0]
            reason = f"{first.get('Key')}: {first.get('Code')}: {first.get('Message')}"
            message = f"forceDestroy cannot delete {len(answer['Errors'])} object versions of {bucket}: {reason}"
            raise ProviderError(message)


def _delete_bucket(cloud: Cloud, bucket: str, state: Values) -> None:
    if state.get("forceDestroy"):
        _empty(cloud, bucket)
    cloud.call(_SERVICE, "DeleteBucket", Bucket=bucket)


BUCKET = Kind(
    pulumi_type="aws:s3/bucket:Bucket",
    service=_SERVICE,
    create="CreateBucket",
    read="HeadBucket",
    at="",
    key="Bucket",
    id=lambda inputs, _made: str(inputs["bucket"]),
    deleter=_delete_bucket,
    renames={"objectLockEnabled": "ObjectLockEnabledForBucket"},
    reads="arn bucketDomainName bucketRegionalDomainName bucketRegion hostedZoneId objectLockEnabled",
    imports="objectLockEnabled",
    naming=Naming(property="bucket", prefix_property="bucketPrefix", limit=63, lower=True),
    state_only=frozenset({"forceDestroy"}),
    defaults={"forceDestroy": False},
    unsupported={
        "accelerationStatus": _OWN_RESOURCE.format("BucketAccelerateConfiguration"),
        "acl": _OWN_RESOURCE.format("BucketAcl"),
        "bucketNamespace": "the embedded cloud has only the global namespace",
        "corsRules": _OWN_RESOURCE.format("BucketCorsConfiguration"),
        "grants": _OWN_RESOURCE.format("BucketAcl"),
        "lifecycleRules": _OWN_RESOURCE.format("BucketLifecycleConfiguration"),
        "logging": _OWN_RESOURCE.format("BucketLogging"),
        "objectLockConfiguration": _OWN_RESOURCE.format("BucketObjectLockConfiguration"),
        "policy": _OWN_RESOURCE.format("BucketPolicy"),
        "replicationConfiguration": _OWN_RESOURCE.format("BucketReplicationConfig"),
        "requestPayer": _OWN_RESOURCE.format("BucketRequestPaymentConfiguration"),
        "serverSideEncryptionConfiguration": _OWN_RESOURCE.format("BucketServerSideEncryptionConfiguration"),
        "versioning": _OWN_RESOURCE.format("BucketVersioning"),
        "website": _OWN_RESOURCE.format("BucketWebsiteConfiguration"),
    },
    fixed_create=_bucket_location,
    outputs=_bucket_outputs,
    tagging=Tagging(create=None, read=_read_tags, add=_add_tags, remove=_remove_tags),
    import_key=lambda bucket: {"bucket": bucket},
)


def _bucket_of(inputs: Values, _made: Item) -> str:
    owner = inputs.get("expectedBucketOwner")
    return f"{inputs['bucket']},{owner}" if owner else str(inputs["bucket"])


def _part(resource_id: str) -> dict[str, Any]:
    bucket, _, owner = resource_id.partition(",")
    return {"Bucket": bucket, **({"ExpectedBucketOwner": owner} if owner else {})}


def _known(resource_id: str) -> Values:
    bucket, _, owner = resource_id.partition(",")
    return {"bucket": bucket, **({"expectedBucketOwner": owner} if owner else {})}


def _setting(name: str, put: str, get: str, delete: str | None, at: str, *, owned: bool = True, **more: Any) -> Kind:
    """Return the row of one of the bucket's settings: a document that is put, got and deleted as a whole."""

    def find(cloud: Cloud, resource_id: str, _state: Values) -> Item | None:
        answer = cloud.look(_SERVICE, get, **_part(resource_id))
        return (answer or {}).get(at) if at else answer

    def remove(cloud: Cloud, resource_id: str, state: Values) -> None:
        if delete and not state.get("skipDestroy"):
            cloud.call(_SERVICE, delete, **_part(resource_id))

    row: dict[str, Any] = {
        "pulumi_type": f"aws:s3/{name[0].lower()}{name[1:]}:{name}",
        "service": _SERVICE,
        "create": put,
        "update": put,
        "read": get,
        "at": at,
        "key": "Bucket",
        "id": _bucket_of,
        "find": find,
        "deleter": remove,
        "import_key": _known,
        "replaces": frozenset({"expectedBucketOwner"} if owned else ()),
    }
    return Kind(**{**row, **more})


def _suspend(cloud: Cloud, resource_id: str, state: Values) -> None:
    # A bucket whose versioning was ever on can only be suspended; one that never had it has nothing to undo.
    if (state.get("versioningConfiguration") or {}).get("status") == "Enabled":
        lock = _bucket_outputs(cloud, _part(resource_id)["Bucket"], {}, {})["objectLockEnabled"]
        if not lock:  # object lock does not let go of versioning
            cloud.call(
                _SERVICE, "PutBucketVersioning", **_part(resource_id), VersioningConfiguration={"Status": "Suspended"}
            )


def _find_versioning(cloud: Cloud, resource_id: str, state: Values) -> Item | None:
    answer = cloud.look(_SERVICE, "GetBucketVersioning", **_part(resource_id))
    if answer is None:
        return None
    if "Status" not in answer and (state.get("versioningConfiguration") or {}).get("status") == "Disabled":
        answer["Status"] = "Disabled"
    return answer


def _create_versioning(cloud: Cloud, inputs: Values, given: Item) -> Item:
    # `Disabled` is Terraform's word for a bucket whose versioning was never on: AWS has no call that says so.
    if (inputs.get("versioningConfiguration") or {}).get("status") == "Disabled":
        return {}
    return cloud.call(_SERVICE, "PutBucketVersioning", **given)


def _versioning_outputs(_cloud: Cloud, _resource_id: str, item: Item, state: Values) -> Values:
    wanted = state.get("versioningConfiguration") or {}
    found: Values = {"status": item.get("Status", "Disabled")}
    if "mfaDelete" in wanted:
        found["mfaDelete"] = item.get("MFADelete", wanted["mfaDelete"])
    return {"versioningConfiguration": found}


def _unlock(cloud: Cloud, resource_id: str, _state: Values) -> None:
    # Object lock itself can never be turned off, its default retention can.
    cloud.call(
        _SERVICE,
        "PutObjectLockConfiguration",
        **_part(resource_id),
        ObjectLockConfiguration={"ObjectLockEnabled": "Enabled"},
    )


def _lifecycle_outputs(_cloud: Cloud, _resource_id: str, _item: Item, state: Values) -> Values:
    size = "transitionDefaultMinimumObjectSize"
    return {size: state.get(size, "all_storage_classes_128K")}


KINDS = (
    BUCKET,
    _setting(
        "BucketVersioning",
        "PutBucketVersioning",
        "GetBucketVersioning",
        None,
        "",
        find=_find_versioning,
        creator=_create_versioning,
        deleter=_suspend,
        outputs=_versioning_outputs,
        imports="versioningConfiguration",
        secrets=frozenset({"mfa"}),
    ),
    _setting(
        "BucketServerSideEncryptionConfiguration",
        "PutBucketEncryption",
        "GetBucketEncryption",
        "DeleteBucketEncryption",
        "ServerSideEncryptionConfiguration",
        document="ServerSideEncryptionConfiguration",
        imports="rules",
    ),
    _setting(
        "BucketPublicAccessBlock",
        "PutPublicAccessBlock",
        "GetPublicAccessBlock",
        "DeletePublicAccessBlock",
        "PublicAccessBlockConfiguration",
        owned=False,
        document="PublicAccessBlockConfiguration",
        state_only=frozenset({"skipDestroy"}),
        defaults=dict.fromkeys(
            ("blockPublicAcls", "blockPublicPolicy", "ignorePublicAcls", "restrictPublicBuckets"), False
        ),
        imports="blockPublicAcls blockPublicPolicy ignorePublicAcls restrictPublicBuckets",
    ),
    _setting(
        "BucketOwnershipControls",
        "PutBucketOwnershipControls",
        "GetBucketOwnershipControls",
        "DeleteBucketOwnershipControls",
        "OwnershipControls",
        owned=False,
        document="OwnershipControls",
        imports="rule",
    ),
    _setting(
        "BucketPolicy", "PutBucketPolicy", "GetBucketPolicy", "DeleteBucketPolicy", "", owned=False, imports="policy"
    ),
    _setting(
        "BucketLifecycleConfiguration",
        "PutBucketLifecycleConfiguration",
        "GetBucketLifecycleConfiguration",
        "DeleteBucketLifecycle",
        "",
        document="LifecycleConfiguration",
        reads="transitionDefaultMinimumObjectSize",
        outputs=_lifecycle_outputs,
        imports="rules",
        unsupported={"timeouts": "use the resource option customTimeouts"},
    ),
    _setting(
        "BucketReplicationConfig",
        "PutBucketReplication",
        "GetBucketReplication",
        "DeleteBucketReplication",
        "ReplicationConfiguration",
        owned=False,
        document="ReplicationConfiguration",
        secrets=frozenset({"token"}),
        imports="role rules",
    ),
    _setting(
        "BucketObjectLockConfiguration",
        "PutObjectLockConfiguration",
        "GetObjectLockConfiguration",
        None,
        "ObjectLockConfiguration",
        document="ObjectLockConfiguration",
        deleter=_unlock,
        defaults={"objectLockEnabled": "Enabled"},
        secrets=frozenset({"token"}),
        imports="objectLockEnabled rule",
    ),
)
