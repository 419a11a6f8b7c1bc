"""The JSON schemas of everything this package prints or writes as JSON.

    python -m recovery.schemas FOLDER     write them, one file each (docs/schemas is the published place)

A field that is not in a schema may be added within one schema_version; none is renamed or taken away.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pydantic

from recovery import documents
from recovery.dumps.manifest import Manifest
from recovery.report.model import Report
from recovery.restore import RestoreResult
from recovery.verify import Verification

# File name -> the model of the document.
MODELS: dict[str, type[pydantic.BaseModel]] = {
    "backup": documents.BackupDocument,
    "backups-list": documents.BackupsDocument,
    "backups-prune": documents.PruneDocument,
    "backups-show": documents.ShownDocument,
    "backups-verify": documents.RereadDocument,
    "doctor": documents.DoctorDocument,
    "drill-report": Report,
    "drills-list": documents.DrillsDocument,
    "drills-report": documents.WrittenDocument,
    "environment-down": documents.RemovedDocument,
    "environment-down-dry-run": documents.RemovalPlanDocument,
    "environment-status": documents.EnvironmentsDocument,
    "environment-up": documents.EnvironmentDocument,
    "environment-up-dry-run": documents.EnvironmentPlanDocument,
    "error": documents.ErrorDocument,
    "manifest": Manifest,
    "restore": RestoreResult,
    "restore-drop-interrupted": documents.CleanedDocument,
    "restore-dry-run": documents.RestorePlanDocument,
    "verify": Verification,
}


def schema(name: str) -> dict[str, Any]:
    """Return the JSON schema (draft 2020-12) of a document, as it is written out."""
    made = MODELS[name].model_json_schema(mode="serialization", by_alias=True)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **_one_line(made)}


def _one_line(part: Any) -> Any:
    """The same with every description in one line: how a docstring is wrapped is nobody's contract."""
    if isinstance(part, list):
        return [_one_line(item) for item in part]
    if not isinstance(part, dict):
        return part
    return {
        key: " ".join(value.split()) if key == "description" and isinstance(value, str) else _one_line(value)
        for key, value in part.items()
    }


def text(name: str) -> str:
    """Return the content of the schema's file."""
    return json.dumps(schema(name), indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def write(folder: Path) -> list[Path]:
    """Write every schema into the folder; return the files."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for name in MODELS:
        file = folder / f"{name}.schema.json"
        file.write_text(text(name), encoding="utf-8")
        files.append(file)
    return files


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m recovery.schemas FOLDER")
    write(Path(sys.argv[1]))
