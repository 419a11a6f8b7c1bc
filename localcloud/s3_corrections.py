"""What moto's S3 gets wrong for real clients, put right: each correction has its test."""

from __future__ import annotations

import copy
import secrets
import threading
from typing import Any
from urllib.parse import parse_qs, urlsplit

import xmltodict  # type: ignore[import-untyped]  # it ships no types
from moto.s3.exceptions import S3ClientError
from moto.s3.models import FakeBucket, FakeKey, FakeMultipart, MultipartChecksumBuilder, S3Backend
from moto.s3.responses import S3Response
from werkzeug.datastructures import Headers

from localcloud.layers import Layers
from localcloud.reconciler import Context, Reconciler
from localcloud.replica import S3_LOCK
from localcloud.s3_objects import (
    CHECKSUMS,
    UNCHECKED,
    Slices,
    check_digests,
    checksum_headers,
    checksum_of_copy,
    key_arn,
)
from localcloud.s3_policy import Values, evaluate

_LIFECYCLE = "localcloud_lifecycle"  # on moto's bucket: the rules as they were put
_LOCK = "localcloud_lock"  # on moto's multipart upload: legal hold, mode, until

# What the policy language calls a request on an object, by method; a query names a part of it.
_ACTIONS = {"GET": "Get", "HEAD": "Get", "PUT": "Put", "POST": "Put", "DELETE": "Delete"}
_SUBRESOURCES = {"tagging": "Tagging", "acl": "Acl", "retention": "Retention", "legal-hold": "LegalHold"}


class _AccessDeniedError(S3ClientError):
    code = "AccessDenied"
    status = 403

    def __init__(self) -> None:
        super().__init__("Access Denied")


def _locked(inner: Any, *positional: Any, **named: Any) -> Any:
    with S3_LOCK:
        return inner(*positional, **named)


class _Corrections:
    """Corrects moto's S3; owns neither processes nor threads."""

    name = "s3 corrections"

    def __init__(self, context: Context) -> None:
        self._context = context
        self._layers = Layers()
        self._request = threading.local()

    def install(self) -> None:
        wrap = self._layers.wrap
        for method in ("put_object", "delete_object", "list_objects", "list_objects_v2", "list_object_versions"):
            wrap(S3Backend, method, _locked)
        wrap(S3Response, "key_response", self._key_response)
        wrap(S3Response, "bucket_response", self._bucket_response)
        wrap(S3Response, "_key_response", self._say_denied)
        wrap(S3Response, "_bucket_response_put", self._keep_tags_of_new_bucket)
        wrap(S3Response, "put_object", self._check_digests)
        wrap(S3Response, "upload_part", self._check_digests)
        wrap(S3Response, "head_object", self._head_checksum)
        wrap(S3Response, "get_object", self._get_object)
        wrap(S3Response, "get_bucket_lifecycle", self._get_lifecycle)
        wrap(FakeKey, "value", self._value)
        wrap(FakeBucket, "get_permission", self._permission)
        wrap(FakeBucket, "set_lifecycle", self._set_lifecycle)
        wrap(S3Backend, "put_object", self._name_kms_key)
        wrap(S3Backend, "copy_object", self._copy_checksum)
        wrap(S3Backend, "create_multipart_upload", self._create_multipart)
        wrap(S3Backend, "complete_multipart_upload", self._complete_multipart)
        wrap(S3Backend, "put_object_lock_configuration", self._lock_configuration)
        wrap(MultipartChecksumBuilder, "__init__", self._begin_checksum)
        wrap(MultipartChecksumBuilder, "addPart", self._add_to_checksum)
        wrap(MultipartChecksumBuilder, "build", self._end_checksum)

    def reset(self) -> None:
        """Do nothing: all there is to forget is moto's own."""

    def suspend(self, region: str) -> None:
        """Do nothing: no process runs here."""

    def resume(self, region: str) -> None:
        """Do nothing: no process runs here."""

    def stop(self) -> None:
        self._layers.undo()

    def status(self) -> list[dict[str, str]]:
        return []

    # --- a request ---

    def _key_response(self, inner: Any, response: Any, request: Any, *rest: Any) -> Any:
        self._request.current = (response, request)
        try:
            status, headers, body = inner(response, request, *rest)
            # A Range that S3 ignores leaves the content unread until here.
            return status, headers, body[:] if isinstance(body, Slices) else body
        finally:
            self._request.current = None

    def _bucket_response(self, inner: Any, response: Any, request: Any, *rest: Any) -> Any:
        self._request.current = (response, request)
        try:
            return inner(response, request, *rest)
        finally:
            self._request.current = None

    def _current(self) -> tuple[Any, Any] | None:
        current: tuple[Any, Any] | None = getattr(self._request, "current", None)
        return current

    # --- policies ---

    def _permission(self, inner: Any, bucket: Any, action: str, resource: str) -> Any:
        current = self._current()
        if bucket.policy is None or current is None:
            return inner(bucket, action, resource)
        response, request = current
        query = parse_qs(urlsplit(request.url).query, keep_blank_values=True)
        if action != "s3:DeleteObject" or request.method != "POST":  # else DeleteObjects, which asks for each object
            action = _action(request.method, query)
        values = _condition_values(response, request, query, bucket)
        return evaluate(bucket.policy.decode(), action, resource, bucket.account_id, values)

    def _say_denied(self, inner: Any, response: Any, request: Any, *rest: Any) -> Any:
        answer = inner(response, request, *rest)
        if answer == (403, {}, "") and request.method != "HEAD":
            raise _AccessDeniedError
        return answer

    # --- buckets ---

    def _keep_tags_of_new_bucket(
        self, inner: Any, response: Any, request: Any, bucket_name: str, querystring: dict[str, Any]
    ) -> Any:
        answer = inner(response, request, bucket_name, querystring)
        if not querystring and response.body:
            configuration = xmltodict.parse(response.body).get("CreateBucketConfiguration") or {}
            tags = (configuration.get("Tags") or {}).get("Tag") or []
            if tags:
                tags = tags if isinstance(tags, list) else [tags]
                response.backend.put_bucket_tagging(bucket_name, {tag["Key"]: tag.get("Value") or "" for tag in tags})
        return answer

    def _set_lifecycle(self, inner: Any, bucket: Any, rules: list[dict[str, Any]]) -> None:
        as_put = copy.deepcopy(rules)
        inner(bucket, rules)
        for rule in as_put:
            rule.setdefault("ID", secrets.token_urlsafe(24))
        setattr(bucket, _LIFECYCLE, as_put)

    def _get_lifecycle(self, inner: Any, response: Any) -> Any:
        bucket = response.backend.get_bucket(response.bucket_name)
        rules = getattr(bucket, _LIFECYCLE, None)
        if not bucket.rules or not rules:
            return inner(response)
        headers = {"x-amz-transition-default-minimum-object-size": "all_storage_classes_128K"}
        return 200, headers, xmltodict.unparse({"LifecycleConfiguration": {"Rule": rules}})

    def _lock_configuration(self, inner: Any, backend: Any, bucket_name: str, lock_enabled: Any, *default: Any) -> None:
        mode, days, years = (*default, None, None, None)[:3]
        bucket = backend.get_bucket(bucket_name)
        if not bucket.is_versioned:
            inner(backend, bucket_name, lock_enabled, *default)
            return
        # Since 2023 S3 takes a lock configuration at any time of a versioned bucket's life.
        if lock_enabled:
            bucket.object_lock_enabled = True
        bucket.default_lock_mode = mode
        # Zero is how the absent one of the two arrives; read back, it would be there.
        bucket.default_lock_days = days or None
        bucket.default_lock_years = years or None

    # --- objects ---

    def _check_digests(self, inner: Any, response: Any) -> Any:
        check_digests(response.headers, response.body or b"")
        # Who brings a checksum of his own need not name its algorithm; moto forgets it then.
        named = [name for name in CHECKSUMS if f"x-amz-checksum-{name.lower()}" in response.headers]
        if named and not response.headers.get("x-amz-sdk-checksum-algorithm"):
            response.headers = Headers([*response.headers.items(), ("x-amz-sdk-checksum-algorithm", named[0])])
        return inner(response)

    def _head_checksum(self, inner: Any, response: Any, bucket_name: str, query: Any, *rest: Any, headers: Any) -> Any:
        status, answer, body = inner(response, bucket_name, query, *rest, headers=headers)
        if status in {200, 206} and headers.get("x-amz-checksum-mode") == "ENABLED" and "partNumber" not in query:
            key = response.backend.get_object(bucket_name, rest[0], query.get("versionId", [None])[0])
            if key is not None:
                answer.update(checksum_headers(key))
        return status, answer, body

    def _get_object(self, inner: Any, response: Any) -> Any:
        self._request.sliced = bool(response.headers.get("range")) and "partNumber" not in response.querystring
        try:
            status, headers, body = inner(response)
        finally:
            self._request.sliced = False
        algorithm_seen = any(name.startswith("x-amz-checksum-") for name in headers)
        if status == 200 and algorithm_seen:
            headers.setdefault("x-amz-checksum-type", "FULL_OBJECT")
        return status, headers, body

    def _value(self, inner: Any, key: Any) -> Any:
        return Slices(key) if getattr(self._request, "sliced", False) else inner(key)

    def _name_kms_key(self, inner: Any, backend: Any, bucket_name: str, *rest: Any, **named: Any) -> Any:
        key = inner(backend, bucket_name, *rest, **named)
        key_arn(key, backend.get_bucket(bucket_name).region_name)
        return key

    def _copy_checksum(
        self, inner: Any, backend: Any, src_key: Any, dest_bucket_name: str, dest_key_name: str, **named: Any
    ) -> None:
        inner(backend, src_key, dest_bucket_name, dest_key_name, **named)
        made = backend.get_object(dest_bucket_name, dest_key_name)
        if made is not None and src_key.checksum_type == "COMPOSITE":
            checksum_of_copy(made)

    # --- uploads in parts ---

    def _create_multipart(self, inner: Any, backend: Any, bucket_name: str, *rest: Any, **named: Any) -> Any:
        upload = inner(backend, bucket_name, *rest, **named)
        current = self._current()
        if current is not None:
            bucket = backend.get_bucket(bucket_name)
            lock = current[0]._get_lock_details(bucket, bucket.object_lock_enabled)  # noqa: SLF001  # moto's reader
            setattr(upload, _LOCK, lock)
        return upload

    def _complete_multipart(self, inner: Any, backend: Any, bucket_name: str, multipart_id: str, body: Any) -> Any:
        upload: FakeMultipart | None = backend.get_bucket(bucket_name).multiparts.get(multipart_id)
        key = inner(backend, bucket_name, multipart_id, body)
        if upload is not None and key is not None:
            key.lock_legal_status, key.lock_mode, key.lock_until = getattr(upload, _LOCK, (None, None, None))
            # The object has their content now: each part would keep a file open for ever.
            upload.dispose()
            self._keep_checksum_of_whole(key)
        return key

    def _keep_checksum_of_whole(self, key: Any) -> None:
        """Take the client's word for a checksum of the whole object that needs a library of its own to compute."""
        current = self._current()
        said = current[0].headers.get(f"x-amz-checksum-{str(key.checksum_algorithm).lower()}") if current else None
        if said and key.checksum_algorithm in UNCHECKED and key.checksum_type == "FULL_OBJECT":
            key.checksum_value = said

    def _begin_checksum(self, inner: Any, builder: Any, algorithm: str | None, kind: str | None) -> None:
        inner(builder, algorithm, kind)
        builder.localcloud_idle = algorithm is None

    def _add_to_checksum(self, inner: Any, builder: Any, part: bytes) -> None:
        # Without an algorithm nobody can read the checksum: it would cost a second copy of the object.
        if not builder.localcloud_idle:
            inner(builder, part)

    def _end_checksum(self, inner: Any, builder: Any) -> Any:
        return None if builder.localcloud_idle else inner(builder)


def _action(method: str, query: dict[str, list[str]]) -> str:
    for name, what in _SUBRESOURCES.items():
        if name in query:
            version = "Version" if "versionId" in query and what in {"Tagging", "Acl"} else ""
            return f"s3:{_ACTIONS.get(method, 'Get')}Object{version}{what}"
    if "uploadId" in query and method == "DELETE":
        return "s3:AbortMultipartUpload"
    if "uploadId" in query and method == "GET":
        return "s3:ListMultipartUploadParts"
    version = "Version" if "versionId" in query and method in {"GET", "HEAD", "DELETE"} else ""
    return f"s3:{_ACTIONS.get(method, 'Get')}Object{version}"


def _condition_values(response: Any, request: Any, query: dict[str, list[str]], bucket: Any) -> Values:
    """Return the condition keys of a request that the embedded cloud knows; loopback counts as the safest transport."""
    account = bucket.account_id
    values = {
        "aws:securetransport": ["true"],
        "s3:tlsversion": ["1.3"],
        "aws:sourceip": [request.remote_addr or "127.0.0.1"],
        "aws:principalaccount": [account],
        "aws:principalarn": [f"arn:aws:iam::{account}:root"],
        "aws:requestedregion": [response.region],
        "s3:resourceaccount": [account],
        "s3:signatureversion": ["AWS4-HMAC-SHA256"],
        "s3:authtype": ["REST-HEADER" if request.headers.get("Authorization") else "REST-QUERY-STRING"],
    }
    for name, value in request.headers.items():
        lowered = name.lower()
        if lowered.startswith("x-amz-object-lock-"):
            values[f"s3:{lowered.removeprefix('x-amz-')}"] = [value]
        elif lowered.startswith("x-amz-"):
            values[f"s3:{lowered}"] = [value]
    for key, tag_values in parse_qs(request.headers.get("x-amz-tagging", ""), keep_blank_values=True).items():
        values[f"s3:requestobjecttag/{key.lower()}"] = tag_values
        values.setdefault("s3:requestobjecttagkeys", []).append(key)
    if "versionId" in query:
        values["s3:versionid"] = query["versionId"]
    # The parts of an upload are encrypted as it was begun.
    upload = bucket.multiparts.get(query.get("uploadId", [""])[0])
    if upload is not None and upload.sse_encryption:
        values["s3:x-amz-server-side-encryption"] = [upload.sse_encryption]
        if upload.kms_key_id:
            values["s3:x-amz-server-side-encryption-aws-kms-key-id"] = [upload.kms_key_id]
    return values


def reconciler(context: Context) -> Reconciler:
    """Return the part of the cloud that corrects S3."""
    return _Corrections(context)
