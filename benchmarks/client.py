"""`python -m benchmarks.client WORK …`: one run of ours in a process of its own, whose memory and CPU time it reports.

Prints one JSON object: seconds, cpu_seconds, peak_megabytes (VmHWM), started (the monotonic clock) and what the work
itself says.
"""

from __future__ import annotations

import json
import re
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from recovery.dumps.gzip_writer import MEMBER_BYTES, GzipWriter
from recovery.dumps.manifest import Manifest
from recovery.dumps.members import inflate
from recovery.dumps.reader import check
from recovery.dumps.source import open_dump
from recovery.dumps.writer import take_backup
from recovery.restore import restore
from recovery.verify import Outcome, verify


def _restore_without_statistics(dump: str, dsn: str, jobs: str) -> dict[str, Any]:
    return _restore(dump, dsn, jobs, analyze=False)


def _restore(dump: str, dsn: str, jobs: str, manifest: str | None = None, *, analyze: bool = True) -> dict[str, Any]:
    begun = time.monotonic()
    told: list[tuple[float, str]] = []
    result = restore(
        dump,
        dsn,
        manifest=Manifest.from_bytes(Path(manifest).read_bytes()) if manifest is not None else None,
        replace=True,
        jobs=int(jobs),
        analyze=analyze,
        progress=lambda event: told.append((time.monotonic() - begun, event.text)),
    )
    return {"phases": [phase.model_dump() for phase in result.phases], "bytes": result.bytes, "told": told}


def _backup(dsn: str, folder: str) -> dict[str, Any]:
    backup = take_backup(dsn, local_dir=Path(folder))
    layout = backup.manifest.layout if backup.manifest is not None else None
    return {"dump": str(backup.path), "size": backup.size, "text": layout.uncompressed_size if layout else 0}


def _verify(dsn: str, manifest: str) -> dict[str, Any]:
    found = verify(dsn, manifest=Manifest.from_bytes(Path(manifest).read_bytes()))
    bad = [rung.name for rung in found.rungs if rung.outcome is Outcome.FAIL]
    return {"rungs": [(rung.name, rung.seconds) for rung in found.rungs], "failed": bad}


def _read(dump: str, manifest: str) -> dict[str, Any]:
    with open_dump(dump) as source:
        return {"bytes": check(source, Manifest.from_bytes(Path(manifest).read_bytes())).text_done}


def _inflate(dump: str) -> dict[str, Any]:
    with open_dump(dump) as source:
        return {"bytes": sum(map(len, inflate(source.stored(), dump)))}


def _deflate(dump: str) -> dict[str, Any]:
    used = 0.0
    with open_dump(dump) as source, GzipWriter(lambda _: None) as writer:
        for piece in inflate(source.stored(), dump, MEMBER_BYTES):
            before = time.process_time()
            writer.write(piece)
            writer.finish()
            used += time.process_time() - before
    return {"deflating": used}


_WORKS: dict[str, Callable[..., dict[str, Any]]] = {
    "restore": _restore,
    "restore-without-statistics": _restore_without_statistics,
    "backup": _backup,
    "verify": _verify,
    "read": _read,
    "inflate": _inflate,
    "deflate": _deflate,
}


def _cpu() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def main() -> None:
    """Do the work that the arguments name and print what it took."""
    begun, cpu = time.monotonic(), _cpu()
    said = _WORKS[sys.argv[1]](*sys.argv[2:])
    seconds = time.monotonic() - begun
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    peak = int(found[1]) / 1024 if found else 0.0
    took = {"started": begun, "seconds": seconds, "cpu_seconds": _cpu() - cpu, "peak_megabytes": peak}
    print(json.dumps({**took, **said}))


if __name__ == "__main__":
    main()
