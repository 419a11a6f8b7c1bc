"""S3 replication through boto3: what is copied, when, and what each side says of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError

Eventually = Callable[[Callable[[], Any]], Any]
ROLE = "arn:aws:iam::123456789012:role/agentverse-prod-replication"
MB = 1024 * 1024


def arn(bucket: str) -> str:
    return f"arn:aws:s3:::{bucket}"


def rule(destination: str, *, markers: bool = False, identifier: str = "all", **more: Any) -> dict[str, Any]:
    return {
        "ID": identifier,
        "Priority": 1,
        "Status": "Enabled",
        "Filter": {"Prefix": ""},
        "DeleteMarkerReplication": {"Status": "Enabled" if markers else "Disabled"},
        "Destination": {"Bucket": arn(destination)},
        **more,
    }


class Buckets:
    """A source in us-east-1 and destinations in both regions, all versioned."""

    def __init__(self, cloud: Any) -> None:
        self.cloud = cloud
        self.east = cloud.client("s3", "us-east-1")
        self.west = cloud.client("s3", "us-west-2")
        self.east.create_bucket(Bucket="source")
        self.east.create_bucket(Bucket="near")
        for name in ("far", "farther"):
            self.west.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": "us-west-2"})
        for name in ("source", "near", "far", "farther"):
            self.version(name)

    def version(self, bucket: str, status: str = "Enabled") -> None:
        self.east.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": status})

    def replicate(self, *rules: dict[str, Any], source: str = "source") -> None:
        configuration = {"Role": ROLE, "Rules": list(rules)}
        self.east.put_bucket_replication(Bucket=source, ReplicationConfiguration=configuration)

    def settle(self) -> None:
        assert self.cloud.replication.flush()

    def keys(self, bucket: str) -> list[str]:
        return [entry["Key"] for entry in self.west.list_objects_v2(Bucket=bucket).get("Contents", [])]

    def status(self, bucket: str, key: str) -> str | None:
        answer = self.west.head_object(Bucket=bucket, Key=key)
        found: str | None = answer.get("ReplicationStatus")
        assert self.west.get_object(Bucket=bucket, Key=key).get("ReplicationStatus") == found
        return found


@pytest.fixture
def buckets(cloud: Any) -> Buckets:
    return Buckets(cloud)


def test_an_object_arrives_with_its_version_metadata_tags_type_and_checksum(buckets: Buckets) -> None:
    buckets.replicate(rule("far"))
    put = buckets.east.put_object(
        Bucket="source",
        Key="db/dump.sql.gz",
        Body=b"content",
        ContentType="application/gzip",
        Metadata={"under_score": "kept", "origin": "nightly"},
        Tagging="kind=dump&superseded=no",
        ChecksumAlgorithm="SHA256",
    )
    assert put["ResponseMetadata"]["HTTPHeaders"]["x-amz-replication-status"] in {"PENDING", "COMPLETED"}
    buckets.settle()
    assert buckets.status("source", "db/dump.sql.gz") == "COMPLETED"
    assert buckets.status("far", "db/dump.sql.gz") == "REPLICA"
    here = buckets.east.get_object(Bucket="source", Key="db/dump.sql.gz", ChecksumMode="ENABLED")
    there = buckets.west.get_object(
        Bucket="far", Key="db/dump.sql.gz", VersionId=put["VersionId"], ChecksumMode="ENABLED"
    )
    assert there["Body"].read() == b"content"
    for name in ("VersionId", "ETag", "ContentType", "Metadata", "LastModified", "TagCount", "ChecksumSHA256"):
        assert there[name] == here[name], name
    tags = buckets.west.get_object_tagging(Bucket="far", Key="db/dump.sql.gz")["TagSet"]
    assert {tag["Key"]: tag["Value"] for tag in tags} == {"kind": "dump", "superseded": "no"}


def test_a_multipart_object_keeps_its_etag_and_a_copied_one_is_replicated(buckets: Buckets) -> None:
    buckets.replicate(rule("far"))
    upload = buckets.east.create_multipart_upload(Bucket="source", Key="big", ChecksumAlgorithm="SHA256")["UploadId"]
    parts = []
    for number, size in ((1, 5 * MB), (2, 100)):
        part = buckets.east.upload_part(
            Bucket="source",
            Key="big",
            UploadId=upload,
            PartNumber=number,
            Body=b"x" * size,
            ChecksumAlgorithm="SHA256",
        )
        parts.append({"PartNumber": number, "ETag": part["ETag"], "ChecksumSHA256": part["ChecksumSHA256"]})
    done = buckets.east.complete_multipart_upload(
        Bucket="source", Key="big", UploadId=upload, MultipartUpload={"Parts": parts}
    )
    buckets.east.copy_object(Bucket="source", Key="again", CopySource={"Bucket": "source", "Key": "big"})
    buckets.settle()
    there = buckets.west.head_object(Bucket="far", Key="big", ChecksumMode="ENABLED")
    assert there["ETag"] == done["ETag"]
    assert there["ETag"].endswith('-2"')
    assert there["ChecksumSHA256"].endswith("-2")
    assert buckets.keys("far") == ["again", "big"]


def test_objects_written_before_the_rule_stay_where_they_are(buckets: Buckets) -> None:
    buckets.east.put_object(Bucket="source", Key="before", Body=b"")
    buckets.replicate(rule("far"))
    buckets.east.put_object(Bucket="source", Key="after", Body=b"")
    buckets.settle()
    assert buckets.keys("far") == ["after"]
    assert buckets.status("source", "before") is None


def test_rules_choose_by_prefix_tag_and_both_and_one_may_be_disabled(buckets: Buckets) -> None:
    both = {"And": {"Prefix": "snapshots/", "Tags": [{"Key": "keep", "Value": "yes"}, {"Key": "tier", "Value": "1"}]}}
    buckets.replicate(
        rule("far", identifier="prefix", Priority=1, Filter={"Prefix": "telemetry/"}),
        rule("farther", identifier="tag", Priority=2, Filter={"Tag": {"Key": "far", "Value": "ther"}}),
        rule("near", identifier="and", Priority=3, Filter=both),
        rule("near", identifier="off", Priority=4, Status="Disabled"),
    )
    for key, tagging in (
        ("telemetry/1", ""),
        ("telemetry/2", "far=ther"),
        ("snapshots/1", "keep=yes"),
        ("snapshots/2", "tier=1&keep=yes&more=x"),
        ("exports/1", "far=other"),
    ):
        buckets.east.put_object(Bucket="source", Key=key, Body=b"", Tagging=tagging)
    buckets.settle()
    assert buckets.keys("far") == ["telemetry/1", "telemetry/2"]
    assert buckets.keys("farther") == ["telemetry/2"]
    assert buckets.keys("near") == ["snapshots/2"]
    assert buckets.status("source", "exports/1") is None


def test_for_each_destination_the_rule_of_highest_priority_decides(buckets: Buckets) -> None:
    cheap = {"Bucket": arn("far"), "StorageClass": "STANDARD_IA"}
    buckets.replicate(
        rule("far", identifier="plain", Priority=7),
        rule("far", identifier="cheap", Priority=9, Filter={"Prefix": "old/"}, Destination=cheap),
    )
    for key in ("old/1", "new/1"):
        buckets.east.put_object(Bucket="source", Key=key, Body=b"")
    buckets.settle()
    assert buckets.west.head_object(Bucket="far", Key="old/1")["StorageClass"] == "STANDARD_IA"
    assert "StorageClass" not in buckets.west.head_object(Bucket="far", Key="new/1")


def test_delete_markers_follow_the_rule_and_deleted_versions_never_do(buckets: Buckets) -> None:
    buckets.replicate(
        rule("far", identifier="with", Priority=1, markers=True), rule("near", identifier="without", Priority=2)
    )
    version = buckets.east.put_object(Bucket="source", Key="k", Body=b"")["VersionId"]
    buckets.settle()
    marker = buckets.east.delete_object(Bucket="source", Key="k")["VersionId"]
    buckets.east.delete_object(Bucket="source", Key="k", VersionId=version)
    buckets.settle()
    assert buckets.keys("far") == []
    versions = buckets.west.list_object_versions(Bucket="far")
    assert [entry["VersionId"] for entry in versions["DeleteMarkers"]] == [marker]
    assert [entry["VersionId"] for entry in versions["Versions"]] == [version]
    assert buckets.keys("near") == ["k"]


def test_replicas_are_not_replicated_again_even_in_a_circle(buckets: Buckets) -> None:
    buckets.replicate(rule("far"))
    buckets.replicate(rule("source", identifier="back", Priority=1), source="far")
    buckets.replicate(rule("farther"), source="near")
    buckets.east.put_object(Bucket="source", Key="k", Body=b"")
    buckets.settle()
    assert len(buckets.west.list_object_versions(Bucket="source")["Versions"]) == 1
    assert buckets.status("far", "k") == "REPLICA"
    buckets.west.put_object(Bucket="far", Key="own", Body=b"")
    buckets.settle()
    assert buckets.status("source", "own") == "REPLICA"


def test_new_tags_and_holds_follow_to_the_replica(buckets: Buckets) -> None:
    buckets.replicate(rule("far"))
    buckets.east.put_object(Bucket="source", Key="db/old", Body=b"")
    buckets.settle()
    buckets.east.put_object_tagging(
        Bucket="source", Key="db/old", Tagging={"TagSet": [{"Key": "superseded", "Value": "yes"}]}
    )
    buckets.settle()
    tags = buckets.west.get_object_tagging(Bucket="far", Key="db/old")["TagSet"]
    assert tags == [{"Key": "superseded", "Value": "yes"}]
    buckets.east.delete_object_tagging(Bucket="source", Key="db/old")
    buckets.settle()
    assert buckets.west.get_object_tagging(Bucket="far", Key="db/old")["TagSet"] == []


def test_a_replica_takes_the_destinations_encryption_and_kms_objects_need_to_be_asked_for(buckets: Buckets) -> None:
    key = buckets.cloud.client("kms", "us-west-2").create_key()["KeyMetadata"]["Arn"]
    default = {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": key}}
    for name in ("far", "farther"):
        buckets.west.put_bucket_encryption(Bucket=name, ServerSideEncryptionConfiguration={"Rules": [default]})
    encrypted = {"Bucket": arn("far"), "EncryptionConfiguration": {"ReplicaKmsKeyID": key}}
    criteria = {"SseKmsEncryptedObjects": {"Status": "Enabled"}}
    buckets.replicate(
        rule("far", Destination=encrypted, SourceSelectionCriteria=criteria),
        rule("farther", identifier="plain", Priority=2),
    )
    source_key = buckets.cloud.client("kms").create_key()["KeyMetadata"]["Arn"]
    buckets.east.put_object(Bucket="source", Key="plain", Body=b"")
    buckets.east.put_object(
        Bucket="source", Key="secret", Body=b"", ServerSideEncryption="aws:kms", SSEKMSKeyId=source_key
    )
    buckets.settle()
    for bucket, name in (("far", "plain"), ("far", "secret"), ("farther", "plain")):
        head = buckets.west.head_object(Bucket=bucket, Key=name)
        assert (head["ServerSideEncryption"], head["SSEKMSKeyId"]) == ("aws:kms", key)
    assert buckets.keys("farther") == ["plain"]


def test_an_object_is_pending_for_as_long_as_replication_lags(slow_cloud: Any) -> None:
    buckets = Buckets(slow_cloud)
    buckets.replicate(rule("far"))
    buckets.east.put_object(Bucket="source", Key="k", Body=b"")
    assert buckets.status("source", "k") == "PENDING"
    assert buckets.keys("far") == []
    (row,) = slow_cloud.replication.status()
    assert (row["name"], row["address"]) == ("1 waiting", "us-east-1 to us-west-2")
    slow_cloud.replication.reset()
    assert slow_cloud.replication.status() == []


def test_replication_to_a_bucket_that_is_gone_or_unversioned_has_failed(buckets: Buckets) -> None:
    buckets.replicate(
        rule("far", Filter={"Prefix": "a/"}), rule("farther", identifier="other", Priority=2, Filter={"Prefix": "b/"})
    )
    buckets.west.delete_bucket(Bucket="far")
    buckets.version("farther", "Suspended")
    for key in ("a/1", "b/1"):
        buckets.east.put_object(Bucket="source", Key=key, Body=b"")
    buckets.settle()
    assert [buckets.status("source", key) for key in ("a/1", "b/1")] == ["FAILED", "FAILED"]


def test_with_two_destinations_the_status_is_that_of_the_worse(buckets: Buckets) -> None:
    buckets.replicate(rule("far"), rule("farther", identifier="other", Priority=2))
    buckets.east.put_object(Bucket="source", Key="both", Body=b"")
    buckets.settle()
    assert buckets.status("source", "both") == "COMPLETED"
    buckets.west.delete_bucket_replication(Bucket="farther")
    buckets.west.delete_object(Bucket="farther", Key="both", VersionId=_version(buckets, "both"))
    buckets.west.delete_bucket(Bucket="farther")
    buckets.east.put_object(Bucket="source", Key="one", Body=b"")
    buckets.settle()
    assert buckets.status("source", "one") == "FAILED"
    assert buckets.keys("far") == ["both", "one"]


def _version(buckets: Buckets, key: str) -> str:
    return str(buckets.east.head_object(Bucket="source", Key=key)["VersionId"])


def test_replication_waits_for_a_dark_destination_and_goes_on_in_order(buckets: Buckets) -> None:
    buckets.replicate(rule("far"), rule("near", identifier="near", Priority=2))
    buckets.cloud.blackout("us-west-2")
    versions = [buckets.east.put_object(Bucket="source", Key="k", Body=b"%d" % n)["VersionId"] for n in range(5)]
    buckets.settle()
    assert buckets.east.head_object(Bucket="source", Key="k")["ReplicationStatus"] == "PENDING"
    assert buckets.cloud.replication.status()[0]["state"] == "suspended"
    assert buckets.east.get_object(Bucket="near", Key="k")["Body"].read() == b"4"
    buckets.cloud.restore("us-west-2")
    buckets.settle()
    assert buckets.status("source", "k") == "COMPLETED"
    there = buckets.west.list_object_versions(Bucket="far")["Versions"]
    assert [entry["VersionId"] for entry in there] == versions[::-1]


def test_nothing_moves_out_of_a_dark_source(slow_cloud: Any) -> None:
    buckets = Buckets(slow_cloud)
    buckets.replicate(rule("far"))
    buckets.east.put_object(Bucket="source", Key="k", Body=b"")
    slow_cloud.blackout("us-east-1")
    assert buckets.keys("far") == []
    assert slow_cloud.replication.flush()
    assert slow_cloud.replication.status()[0]["state"] == "suspended"


@pytest.mark.parametrize(
    "rules",
    [
        [
            rule(
                "far",
                Priority=5,
                Filter={"And": {"Prefix": "a/", "Tags": [{"Key": "k", "Value": "v"}, {"Key": "l", "Value": "w"}]}},
                Destination={
                    "Bucket": arn("far"),
                    "StorageClass": "STANDARD_IA",
                    "EncryptionConfiguration": {"ReplicaKmsKeyID": "arn:aws:kms:us-west-2:123456789012:key/1"},
                    "ReplicationTime": {"Status": "Enabled", "Time": {"Minutes": 15}},
                    "Metrics": {"Status": "Enabled", "EventThreshold": {"Minutes": 15}},
                },
                SourceSelectionCriteria={
                    "SseKmsEncryptedObjects": {"Status": "Enabled"},
                    "ReplicaModifications": {"Status": "Disabled"},
                },
            )
        ],
        [
            rule("far", identifier="one", Filter={"Prefix": "telemetry/"}, markers=True),
            rule("near", identifier="two", Priority=2, Filter={"Tag": {"Key": "k", "Value": ""}}, Status="Disabled"),
        ],
        [{"ID": "v1", "Prefix": "old/", "Status": "Enabled", "Destination": {"Bucket": arn("far")}}],
        [rule("far", Filter={})],
    ],
)
def test_a_configuration_reads_back_as_it_was_put(buckets: Buckets, rules: list[dict[str, Any]]) -> None:
    buckets.replicate(*rules)
    read = buckets.east.get_bucket_replication(Bucket="source")["ReplicationConfiguration"]
    assert read == {"Role": ROLE, "Rules": rules}


def test_a_rule_without_an_id_gets_one(buckets: Buckets) -> None:
    unnamed = rule("far")
    del unnamed["ID"]
    buckets.replicate(unnamed)
    (read,) = buckets.east.get_bucket_replication(Bucket="source")["ReplicationConfiguration"]["Rules"]
    assert read.pop("ID")
    assert read == unnamed
    buckets.east.delete_bucket_replication(Bucket="source")
    with pytest.raises(ClientError, match="ReplicationConfigurationNotFoundError"):
        buckets.east.get_bucket_replication(Bucket="source")


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (rule("nowhere"), "Destination bucket must exist"),
        (rule("source"), "same as the source"),
        ({**rule("far"), "Prefix": "x"}, "both Filter and Prefix"),
        ({key: value for key, value in rule("far").items() if key != "Priority"}, "Priority must be specified"),
        (
            {key: value for key, value in rule("far").items() if key != "DeleteMarkerReplication"},
            "DeleteMarkerReplication must be specified",
        ),
        (rule("far", markers=True, Filter={"Tag": {"Key": "k", "Value": "v"}}), "not supported if any Tag"),
        (
            rule("far", SourceSelectionCriteria={"SseKmsEncryptedObjects": {"Status": "Enabled"}}),
            "ReplicaKmsKeyID must be specified",
        ),
    ],
)
def test_a_configuration_that_s3_refuses_is_refused(buckets: Buckets, broken: dict[str, Any], words: str) -> None:
    with pytest.raises(ClientError, match=words) as refused:
        buckets.replicate(broken)
    assert refused.value.response["Error"]["Code"] == "InvalidRequest"


def test_versioning_is_required_on_both_sides_and_stays_on(buckets: Buckets) -> None:
    for name in ("source", "far"):
        buckets.version(name, "Suspended")
        with pytest.raises(ClientError, match=r"[Vv]ersioning") as refused:
            buckets.replicate(rule("far"))
        assert refused.value.response["Error"]["Code"] == "InvalidRequest"
        buckets.version(name)
    buckets.replicate(rule("far"))
    with pytest.raises(ClientError, match="versioning state cannot be changed") as refused:
        buckets.version("source", "Suspended")
    assert refused.value.response["Error"]["Code"] == "InvalidBucketState"
