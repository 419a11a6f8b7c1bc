"""A region goes dark: its requests are cut off, and with us-east-1 go the changes that AWS makes only from there.

Which region a request belongs to is what it was signed for (header or presigned query), and for S3 also where its
bucket lies. Global services are recognised by service, whatever region signed them.
"""

from __future__ import annotations

import io
import re
import socket
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, unquote

from moto.s3.models import s3_backends

# The control planes of IAM, Route 53 and CloudFront live here; so does creating and configuring S3 buckets anywhere.
_CONTROL_REGION = "us-east-1"

_GLOBAL_SERVICES = frozenset({"iam", "route53", "cloudfront"})
_READING_IAM_ACTIONS = ("Get", "List", "Simulate")

# The cloud's own doors are no part of AWS.
_OWN_DOORS = "/_localcloud/"

_HEADER_SCOPE = re.compile(r"Credential=[^/,\s]+/\d{8}/([^/,\s]+)/([^/,\s]+)/aws4_request")
_QUERY_SCOPE = re.compile(r"[^/]+/\d{8}/([^/]+)/([^/]+)/aws4_request")

Environment = dict[str, Any]
Application = Callable[[Environment, Callable[..., Any]], Iterable[bytes]]


@dataclass(frozen=True)
class _Scope:
    """What a request was signed for."""

    region: str
    service: str


def _scope(environ: Environment) -> _Scope | None:
    signed = _HEADER_SCOPE.search(environ.get("HTTP_AUTHORIZATION", ""))
    if signed is None:
        credential = parse_qs(environ.get("QUERY_STRING", "")).get("X-Amz-Credential", [""])[0]
        signed = _QUERY_SCOPE.fullmatch(credential)
    return None if signed is None else _Scope(region=signed[1], service=signed[2].lower())


def _bucket_region(bucket: str) -> str | None:
    place = s3_backends.bucket_accounts.get(bucket)
    if place is None:
        return None
    partition, account = place
    found = s3_backends[account][partition].buckets.get(bucket)
    return None if found is None else str(found.region_name)


def _copy_source(environ: Environment) -> str:
    return unquote(environ.get("HTTP_X_AMZ_COPY_SOURCE", "")).lstrip("/").partition("/")[0]


def _iam_action(environ: Environment) -> str:
    """Return the action of a query request; what was read of its body is put back."""
    query = parse_qs(environ.get("QUERY_STRING", ""))
    if "Action" in query:
        return str(query["Action"][0])
    body: bytes = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    environ["wsgi.input"] = io.BytesIO(body)
    return str(parse_qs(body.decode("utf-8", "replace")).get("Action", [""])[0])


def _changes_global_service(environ: Environment, service: str) -> bool:
    if service == "iam":
        return not _iam_action(environ).startswith(_READING_IAM_ACTIONS)
    return environ.get("REQUEST_METHOD") not in {"GET", "HEAD", "OPTIONS"}


def _configures_bucket(environ: Environment) -> bool:
    """Say whether an S3 request creates, deletes or configures a bucket; DeleteObjects, a POST on it, does not."""
    path, method = environ.get("PATH_INFO", ""), environ.get("REQUEST_METHOD")
    if path.startswith("/v20180820/"):  # S3 Control
        return method not in {"GET", "HEAD"}
    return "/" not in path.strip("/") and path.strip("/") != "" and method in {"PUT", "DELETE"}


class Outage:
    """WSGI middleware that lets nothing through to a dark region; `dark` is replaced as a whole, so reading is safe."""

    def __init__(self, app: Application) -> None:
        self._app = app
        self._lock = threading.Lock()
        self.dark: frozenset[str] = frozenset()

    def blackout(self, region: str) -> None:
        """Answer nothing more for this region."""
        with self._lock:
            self.dark |= {region}

    def restore(self, region: str) -> None:
        """Answer again for this region."""
        with self._lock:
            self.dark -= {region}

    def __call__(self, environ: Environment, start_response: Callable[..., Any]) -> Iterable[bytes]:
        if self._is_cut(environ):
            self._cut(environ)
        return self._app(environ, start_response)

    def _is_cut(self, environ: Environment) -> bool:
        dark = self.dark
        if not dark or environ.get("PATH_INFO", "").startswith(_OWN_DOORS):
            return False
        scope = _scope(environ)
        if scope is not None and scope.service in _GLOBAL_SERVICES:
            return _CONTROL_REGION in dark and _changes_global_service(environ, scope.service)
        if scope is not None and scope.region in dark:
            return True
        # What nobody signed goes to S3 too: objects may be public.
        return (scope is None or scope.service == "s3") and self._is_s3_cut(environ, dark)

    @staticmethod
    def _is_s3_cut(environ: Environment, dark: frozenset[str]) -> bool:
        if _CONTROL_REGION in dark and _configures_bucket(environ):
            return True
        bucket = environ.get("PATH_INFO", "").lstrip("/").partition("/")[0]
        return bool(dark & {_bucket_region(bucket), _bucket_region(_copy_source(environ))})

    @staticmethod
    def _cut(environ: Environment) -> None:
        """Shut the connection down without an answer; the server takes ConnectionError as its peer having gone."""
        connection: socket.socket | None = environ.get("werkzeug.socket")
        if connection is not None:
            connection.shutdown(socket.SHUT_RDWR)
        raise ConnectionError("the region is dark")
