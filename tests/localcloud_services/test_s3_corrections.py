"""S3 as real clients meet it: policies with conditions, read-back, checksums, ranges, locks."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import httpx
import pytest
from boto3.s3.transfer import TransferConfig
from botocore.exceptions import ClientError

MB = 1024 * 1024


@pytest.fixture
def s3(cloud: Any) -> Any:
    client = cloud.client("s3")
    client.create_bucket(Bucket="bucket")
    return client


def code(error: pytest.ExceptionInfo[ClientError]) -> str:
    return str(error.value.response["Error"]["Code"])


def deny(condition: dict[str, Any], action: str = "s3:*") -> str:
    statement = {
        "Sid": "Guard",
        "Effect": "Deny",
        "Principal": "*",
        "Action": action,
        "Resource": ["arn:aws:s3:::bucket", "arn:aws:s3:::bucket/*"],
        "Condition": condition,
    }
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


def test_a_policy_that_wants_tls_does_not_deny_the_loopback(s3: Any) -> None:
    policy = deny({"Bool": {"aws:SecureTransport": "false"}})
    s3.put_bucket_policy(Bucket="bucket", Policy=policy)
    s3.put_object(Bucket="bucket", Key="k", Body=b"x")
    s3.head_object(Bucket="bucket", Key="k")
    assert s3.get_object(Bucket="bucket", Key="k")["Body"].read() == b"x"
    s3.delete_objects(Bucket="bucket", Delete={"Objects": [{"Key": "k"}]})
    assert json.loads(s3.get_bucket_policy(Bucket="bucket")["Policy"]) == json.loads(policy)


@pytest.mark.parametrize(
    ("condition", "outcome"),
    [
        ({"NumericLessThan": {"s3:TlsVersion": 1.2}}, "done"),
        ({"Bool": {"aws:SecureTransport": True}}, "AccessDenied"),
        ({"StringNotEquals": {"aws:SourceVpce": "vpce-1"}}, "AccessDenied"),
        ({"StringNotEqualsIfExists": {"aws:SourceVpce": "vpce-1"}}, "AccessDenied"),
        ({"StringEquals": {"aws:SourceVpce": "vpce-1"}}, "done"),
        ({"NotIpAddress": {"aws:SourceIp": ["10.0.0.0/8", "127.0.0.0/8"]}}, "done"),
        ({"StringNotLike": {"aws:PrincipalArn": "arn:aws:iam::999999999999:*"}}, "AccessDenied"),
        ({"Null": {"s3:x-amz-server-side-encryption": "true"}}, "AccessDenied"),
        ({"Null": {"s3:x-amz-server-side-encryption": "false"}}, "done"),
    ],
)
def test_a_denial_holds_only_where_its_condition_does(s3: Any, condition: dict[str, Any], outcome: str) -> None:
    s3.put_bucket_policy(Bucket="bucket", Policy=deny(condition, "s3:PutObject"))
    try:
        s3.put_object(Bucket="bucket", Key="k", Body=b"")
        answer = "done"
    except ClientError as exc:
        answer = exc.response["Error"]["Code"]
    assert answer == outcome


def test_a_policy_may_ask_for_an_encryption_header_on_whole_and_on_parts(s3: Any) -> None:
    s3.put_bucket_policy(
        Bucket="bucket",
        Policy=deny({"StringNotEquals": {"s3:x-amz-server-side-encryption": "aws:kms"}}, "s3:PutObject"),
    )
    with pytest.raises(ClientError):
        s3.put_object(Bucket="bucket", Key="k", Body=b"")
    s3.put_object(Bucket="bucket", Key="k", Body=b"", ServerSideEncryption="aws:kms")
    upload = s3.create_multipart_upload(Bucket="bucket", Key="big", ServerSideEncryption="aws:kms")["UploadId"]
    part = s3.upload_part(Bucket="bucket", Key="big", UploadId=upload, PartNumber=1, Body=b"x")
    parts = [{"PartNumber": 1, "ETag": part["ETag"]}]
    s3.complete_multipart_upload(Bucket="bucket", Key="big", UploadId=upload, MultipartUpload={"Parts": parts})
    assert s3.head_object(Bucket="bucket", Key="big")["ServerSideEncryption"] == "aws:kms"


def test_reading_is_denied_under_its_own_name_and_deleting_under_its(s3: Any) -> None:
    s3.put_object(Bucket="bucket", Key="k", Body=b"")
    s3.put_bucket_policy(Bucket="bucket", Policy=deny({}, "s3:GetObject"))
    for read in (s3.get_object, s3.head_object):
        with pytest.raises(ClientError):
            read(Bucket="bucket", Key="k")
    s3.put_bucket_policy(Bucket="bucket", Policy=deny({}, "s3:DeleteObject"))
    s3.get_object(Bucket="bucket", Key="k")
    with pytest.raises(ClientError):
        s3.delete_object(Bucket="bucket", Key="k")
    errors = s3.delete_objects(Bucket="bucket", Delete={"Objects": [{"Key": "k"}]})["Errors"]
    assert [error["Code"] for error in errors] == ["AccessDenied"]


def test_tags_given_to_a_new_bucket_are_kept_and_s3_control_reads_and_changes_them(cloud: Any) -> None:
    client = cloud.client("s3", "us-west-2")
    client.create_bucket(
        Bucket="tagged",
        CreateBucketConfiguration={
            "LocationConstraint": "us-west-2",
            "Tags": [{"Key": "agentverse:stack", "Value": "primary"}, {"Key": "owner", "Value": "ops"}],
        },
    )
    east = cloud.client("s3")
    east.create_bucket(Bucket="tagged-east", CreateBucketConfiguration={"Tags": [{"Key": "k", "Value": "v"}]})
    assert east.get_bucket_tagging(Bucket="tagged-east")["TagSet"] == [{"Key": "k", "Value": "v"}]
    control = cloud.client("s3control", "us-west-2")

    def to_plain_host(request: Any, **_: Any) -> None:
        # boto3 puts the account before the endpoint's host, which an address of numbers does not bear.
        request.url = request.url.replace("//123456789012.", "//")

    control.meta.events.register("before-sign.s3-control", to_plain_host)
    bucket = {"AccountId": "123456789012", "ResourceArn": "arn:aws:s3:::tagged"}
    control.tag_resource(**bucket, Tags=[{"Key": "owner", "Value": "dr"}])
    control.untag_resource(**bucket, TagKeys=["agentverse:stack"])
    assert control.list_tags_for_resource(**bucket)["Tags"] == [{"Key": "owner", "Value": "dr"}]
    assert client.get_bucket_tagging(Bucket="tagged")["TagSet"] == [{"Key": "owner", "Value": "dr"}]


@pytest.mark.parametrize(
    ("wanted", "content"),
    [
        ("bytes=0-0", b"0"),
        ("bytes=3-5", b"345"),
        ("bytes=7-", b"789"),
        ("bytes=-2", b"89"),
        ("bytes=5-999", b"56789"),
        ("bytes=-999", b"0123456789"),
    ],
)
def test_a_range_of_an_object_is_read(s3: Any, wanted: str, content: bytes) -> None:
    s3.put_object(Bucket="bucket", Key="k", Body=b"0123456789")
    answer = s3.get_object(Bucket="bucket", Key="k", Range=wanted)
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 206
    assert answer["Body"].read() == content
    assert answer["ContentLength"] == len(content)
    assert answer["ContentRange"].endswith("/10")


def test_a_range_nobody_can_read_is_ignored_or_refused(s3: Any) -> None:
    s3.put_object(Bucket="bucket", Key="k", Body=b"0123456789")
    assert s3.get_object(Bucket="bucket", Key="k", Range="bytes=a-b")["Body"].read() == b"0123456789"
    with pytest.raises(ClientError) as refused:
        s3.get_object(Bucket="bucket", Key="k", Range="bytes=10-")
    assert code(refused) == "InvalidRange"
    assert s3.head_object(Bucket="bucket", Key="k", Range="bytes=1-3")["ContentLength"] == 3


def test_a_ranged_download_in_many_parts_is_the_object(s3: Any, home: Any) -> None:
    content = hashlib.shake_256(b"seed").digest(20 * MB + 7)
    (home / "up").write_bytes(content)
    transfer = TransferConfig(multipart_threshold=5 * MB, multipart_chunksize=5 * MB, max_concurrency=4)
    s3.upload_file(str(home / "up"), "bucket", "big", Config=transfer)
    s3.download_file("bucket", "big", str(home / "down"), Config=transfer)
    assert (home / "down").read_bytes() == content
    assert s3.get_object(Bucket="bucket", Key="big")["Body"].read() == content


def test_checksums_are_verified_kept_and_told(s3: Any) -> None:
    sha = base64.b64encode(hashlib.sha256(b"content").digest()).decode()
    put = s3.put_object(Bucket="bucket", Key="k", Body=b"content", ChecksumAlgorithm="SHA256")
    assert put["ChecksumSHA256"] == sha
    for read in (s3.head_object, s3.get_object):
        answer = read(Bucket="bucket", Key="k", ChecksumMode="ENABLED")
        assert (answer["ChecksumSHA256"], answer["ChecksumType"]) == (sha, "FULL_OBJECT")
    for wrong in ({"ChecksumSHA256": sha}, {"ContentMD5": base64.b64encode(b"0" * 16).decode()}):
        with pytest.raises(ClientError) as refused:
            s3.put_object(Bucket="bucket", Key="damaged", Body=b"Content", **wrong)
        assert code(refused) == "BadDigest"
    assert "Contents" not in s3.list_objects_v2(Bucket="bucket", Prefix="damaged")


def test_a_checksum_the_client_brings_is_kept_for_whole_and_parts(s3: Any) -> None:
    sha = base64.b64encode(hashlib.sha256(b"content").digest()).decode()
    s3.put_object(Bucket="bucket", Key="k", Body=b"content", ChecksumSHA256=sha)
    assert s3.head_object(Bucket="bucket", Key="k", ChecksumMode="ENABLED")["ChecksumSHA256"] == sha
    crc = base64.b64encode(b"12345678").decode()
    kind = {"ChecksumAlgorithm": "CRC64NVME", "ChecksumType": "FULL_OBJECT"}
    upload = {"Bucket": "bucket", "Key": "nvme", "UploadId": ""}
    upload["UploadId"] = s3.create_multipart_upload(Bucket="bucket", Key="nvme", **kind)["UploadId"]
    part = s3.upload_part(**upload, PartNumber=1, Body=b"content", ChecksumCRC64NVME=crc)
    parts = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"], "ChecksumCRC64NVME": crc}]}
    s3.complete_multipart_upload(**upload, MultipartUpload=parts, ChecksumCRC64NVME=crc, ChecksumType="FULL_OBJECT")
    answer = s3.head_object(Bucket="bucket", Key="nvme", ChecksumMode="ENABLED")
    assert (answer["ChecksumCRC64NVME"], answer["ChecksumType"]) == (crc, "FULL_OBJECT")


def test_the_default_checksum_of_boto3_survives_whole_and_in_parts(s3: Any, home: Any) -> None:
    (home / "big").write_bytes(b"y" * (9 * MB))
    s3.upload_file(str(home / "big"), "bucket", "big")
    s3.put_object(Bucket="bucket", Key="small", Body=b"y")
    for key, kind in (("big", "COMPOSITE"), ("small", "FULL_OBJECT")):
        answer = s3.head_object(Bucket="bucket", Key=key, ChecksumMode="ENABLED")
        assert answer["ChecksumType"] == kind
        assert s3.get_object(Bucket="bucket", Key=key, ChecksumMode="ENABLED")["Body"].read().strip(b"y") == b""


def test_a_checksum_of_parts_says_how_many_and_a_copy_has_one_of_its_whole(s3: Any) -> None:
    start = s3.create_multipart_upload(Bucket="bucket", Key="big", ChecksumAlgorithm="SHA256")["UploadId"]
    upload = {"Bucket": "bucket", "Key": "big", "UploadId": start}
    bodies = [b"x" * 5 * MB, b"tail"]
    parts, digests = [], b""
    for number, body in enumerate(bodies, 1):
        answer = s3.upload_part(**upload, PartNumber=number, Body=body, ChecksumAlgorithm="SHA256")
        parts.append({"PartNumber": number, "ETag": answer["ETag"], "ChecksumSHA256": answer["ChecksumSHA256"]})
        digests += hashlib.sha256(body).digest()
    s3.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts})
    of_parts = base64.b64encode(hashlib.sha256(digests).digest()).decode() + "-2"
    for read in (s3.head_object, s3.get_object):
        answer = read(Bucket="bucket", Key="big", ChecksumMode="ENABLED")
        assert (answer["ChecksumSHA256"], answer["ChecksumType"]) == (of_parts, "COMPOSITE")
    s3.copy_object(Bucket="bucket", Key="copy", CopySource={"Bucket": "bucket", "Key": "big"})
    whole = base64.b64encode(hashlib.sha256(b"".join(bodies)).digest()).decode()
    answer = s3.head_object(Bucket="bucket", Key="copy", ChecksumMode="ENABLED")
    assert (answer["ChecksumSHA256"], answer["ChecksumType"]) == (whole, "FULL_OBJECT")


def test_objects_of_a_bucket_with_a_default_key_say_so_on_put_and_head(cloud: Any, s3: Any) -> None:
    kms = cloud.client("kms")
    key = kms.create_key()["KeyMetadata"]["Arn"]
    kms.create_alias(AliasName="alias/agentverse-prod", TargetKeyId=key)
    for named in (key, "alias/agentverse-prod", key.rpartition("/")[2]):
        default = {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": named}
        rules = [{"ApplyServerSideEncryptionByDefault": default, "BucketKeyEnabled": True}]
        s3.put_bucket_encryption(Bucket="bucket", ServerSideEncryptionConfiguration={"Rules": rules})
        read = s3.get_bucket_encryption(Bucket="bucket")["ServerSideEncryptionConfiguration"]["Rules"]
        assert read == rules
        for answer in (
            s3.put_object(Bucket="bucket", Key="k", Body=b""),
            s3.head_object(Bucket="bucket", Key="k"),
        ):
            assert (answer["ServerSideEncryption"], answer["SSEKMSKeyId"]) == ("aws:kms", key)
            assert answer["BucketKeyEnabled"] is True


def test_a_lifecycle_reads_back_as_it_was_put(s3: Any) -> None:
    rules = [
        {
            "ID": "superseded",
            "Status": "Enabled",
            "Filter": {"And": {"Prefix": "db/", "Tags": [{"Key": "superseded", "Value": "yes"}]}},
            "Expiration": {"Days": 30},
        },
        {
            "ID": "old versions",
            "Status": "Enabled",
            "Filter": {"Prefix": ""},
            "NoncurrentVersionExpiration": {"NoncurrentDays": 30, "NewerNoncurrentVersions": 3},
            "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 7},
        },
        {
            "ID": "markers",
            "Status": "Disabled",
            "Filter": {"ObjectSizeGreaterThan": 500},
            "Expiration": {"ExpiredObjectDeleteMarker": True},
        },
    ]
    s3.put_bucket_lifecycle_configuration(Bucket="bucket", LifecycleConfiguration={"Rules": rules})
    answer = s3.get_bucket_lifecycle_configuration(Bucket="bucket")
    assert answer["Rules"] == rules
    assert answer["TransitionDefaultMinimumObjectSize"] == "all_storage_classes_128K"
    s3.put_object(Bucket="bucket", Key="db/1", Body=b"")
    tags = [{"Key": "superseded", "Value": "yes"}]
    s3.put_object_tagging(Bucket="bucket", Key="db/1", Tagging={"TagSet": tags})
    assert s3.get_object_tagging(Bucket="bucket", Key="db/1")["TagSet"] == tags
    s3.delete_bucket_lifecycle(Bucket="bucket")
    with pytest.raises(ClientError) as gone:
        s3.get_bucket_lifecycle_configuration(Bucket="bucket")
    assert code(gone) == "NoSuchLifecycleConfiguration"


def test_a_lock_without_a_default_reads_back_and_may_be_put_on_a_bucket_in_use(cloud: Any) -> None:
    s3 = cloud.client("s3")
    s3.create_bucket(Bucket="evidence", ObjectLockEnabledForBucket=True)
    s3.put_object(Bucket="evidence", Key="k", Body=b"")
    enabled = {"ObjectLockEnabled": "Enabled"}
    s3.put_object_lock_configuration(Bucket="evidence", ObjectLockConfiguration=enabled)
    assert s3.get_object_lock_configuration(Bucket="evidence")["ObjectLockConfiguration"] == enabled
    with_default = {**enabled, "Rule": {"DefaultRetention": {"Mode": "GOVERNANCE", "Days": 1}}}
    s3.put_object_lock_configuration(Bucket="evidence", ObjectLockConfiguration=with_default)
    assert s3.get_object_lock_configuration(Bucket="evidence")["ObjectLockConfiguration"] == with_default


def test_objects_locked_whole_or_in_parts_cannot_be_deleted(cloud: Any) -> None:
    s3 = cloud.client("s3")
    s3.create_bucket(Bucket="evidence", ObjectLockEnabledForBucket=True)
    until = datetime.now(UTC).replace(microsecond=0) + timedelta(days=1)
    lock = {"ObjectLockMode": "COMPLIANCE", "ObjectLockRetainUntilDate": until}
    s3.put_object(Bucket="evidence", Key="whole", Body=b"x", **lock)
    upload = s3.create_multipart_upload(Bucket="evidence", Key="parts", **lock)["UploadId"]
    part = s3.upload_part(Bucket="evidence", Key="parts", UploadId=upload, PartNumber=1, Body=b"x")
    parts = [{"PartNumber": 1, "ETag": part["ETag"]}]
    s3.complete_multipart_upload(Bucket="evidence", Key="parts", UploadId=upload, MultipartUpload={"Parts": parts})
    for key in ("whole", "parts"):
        head = s3.head_object(Bucket="evidence", Key=key)
        assert (head["ObjectLockMode"], head["ObjectLockRetainUntilDate"]) == ("COMPLIANCE", until)
        with pytest.raises(ClientError) as refused:
            s3.delete_object(Bucket="evidence", Key=key, VersionId=head["VersionId"])
        assert code(refused) == "AccessDenied"


def test_head_bucket_answers_for_what_is_there_and_404_for_what_is_not(s3: Any) -> None:
    s3.head_bucket(Bucket="bucket")
    with pytest.raises(ClientError) as missing:
        s3.head_bucket(Bucket="missing")
    assert code(missing) == "404"


def test_metadata_names_keep_their_underscores_and_public_reads_work_unsigned(cloud: Any, s3: Any) -> None:
    s3.put_object(Bucket="bucket", Key="k", Body=b"open", Metadata={"snake_case": "v"}, ACL="public-read")
    assert s3.head_object(Bucket="bucket", Key="k")["Metadata"] == {"snake_case": "v"}
    assert httpx.get(f"{cloud.endpoint}/bucket/k").content == b"open"


def test_no_version_is_lost_when_many_write_and_list_at_once(cloud: Any, s3: Any) -> None:
    s3.put_bucket_versioning(Bucket="bucket", VersioningConfiguration={"Status": "Enabled"})
    problems: list[Exception] = []

    def write(number: int) -> None:
        client = boto3.session.Session().client(
            "s3",
            region_name="us-east-1",
            endpoint_url=cloud.endpoint,
            aws_access_key_id="test",
            aws_secret_access_key="test",
        )
        try:
            for turn in range(10):
                client.put_object(Bucket="bucket", Key="one", Body=b"x")
                client.put_object(Bucket="bucket", Key=f"{number}/{turn}", Body=b"x")
                client.list_objects_v2(Bucket="bucket")
        except ClientError as exc:
            problems.append(exc)
        finally:
            client.close()

    threads = [threading.Thread(target=write, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert len(s3.list_object_versions(Bucket="bucket", Prefix="one")["Versions"]) == 60
    assert s3.list_objects_v2(Bucket="bucket")["KeyCount"] == 61
