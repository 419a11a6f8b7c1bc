"""Writes a report: report.json and one self-contained page, beside the journal and in the evidence bucket."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import Environment, PackageLoader, StrictUndefined

from recovery.clients import AwsError
from recovery.errors import EnvironmentLacksError
from recovery.report.model import Report, duration

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client


@dataclass(frozen=True, kw_only=True)
class Written:
    """Where a report was written."""

    json: Path
    html: Path


def render_page(report: Report) -> str:
    """Return the report as one HTML page that needs nothing else; every value in it is escaped."""
    environment = Environment(
        loader=PackageLoader("recovery.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["duration"] = duration
    span = max([report.seconds, *((s.offset or 0) + (s.seconds or 0) for s in report.steps)], default=0) or 1.0
    return environment.get_template("report.html").render(report=report, span=span)


def write_report(report: Report, folder: Path) -> Written:
    """Write report.json and report.html into `folder`. Raises EnvironmentLacksError when it cannot be written."""
    written = Written(json=folder / "report.json", html=folder / "report.html")
    try:
        written.json.write_text(report.model_dump_json(indent=2) + "\n", encoding="utf-8")
        written.html.write_text(render_page(report), encoding="utf-8")
    except OSError as exc:
        raise EnvironmentLacksError(f"The report cannot be written to {folder}.", detail=str(exc)) from exc
    return written


def upload_report(written: Written, drill: str, s3: S3Client, bucket: str) -> str | None:
    """Copy the report to the evidence bucket; return the problem, if any: a report that is here is not lost."""
    try:
        for path, kind in ((written.json, "application/json"), (written.html, "text/html; charset=utf-8")):
            s3.put_object(Bucket=bucket, Key=f"drills/{drill}/{path.name}", Body=path.read_bytes(), ContentType=kind)
    except (*AwsError, OSError) as exc:
        return str(exc)
    return None
