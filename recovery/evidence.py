"""The second copy of a drill's evidence: one object per journal event, and its reports, in the evidence bucket.

Copies are made by one background thread. A copy that fails is kept and tried again at `flush`; what is still missing
then is reported by number, because losing the copy must not stop a recovery, and must not go unsaid.
"""

from __future__ import annotations

import queue
import threading
import time
from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

    from recovery.journal import Event


def event_key(drill: str, seq: int) -> str:
    """Return the key of an event's object; numbers are padded so that listing gives the journal's order."""
    return f"drills/{drill}/journal/{seq:08d}.json"


class BucketMirror:
    """Copies journal events to `s3://bucket/drills/<drill>/journal/<seq>.json`."""

    def __init__(self, s3: S3Client, bucket: str) -> None:
        """Start the copying thread; it does nothing until the first event arrives."""
        self._s3 = s3
        self._bucket = bucket
        self._queue: queue.Queue[Event | None] = queue.Queue()
        self._failed: dict[int, Event] = {}
        self.first_problem: str | None = None
        self._thread = threading.Thread(target=self._copy, name="evidence-mirror", daemon=True)
        self._thread.start()

    def put(self, event: Event) -> None:
        """Queue an event for copying; never blocks, never raises."""
        self._queue.put(event)

    def _copy(self) -> None:
        while (event := self._queue.get()) is not None:
            # After the first failure events only wait: a bucket that is away would cost each of them its time-outs.
            if self._failed or not self._copy_one(event):
                self._failed[event.seq] = event
            self._queue.task_done()
        self._queue.task_done()

    def _copy_one(self, event: Event) -> bool:
        try:
            self._s3.put_object(
                Bucket=self._bucket,
                Key=event_key(event.drill, event.seq),
                Body=event.to_line().encode(),
                ContentType="application/json",
            )
        except (ClientError, BotoCoreError, OSError) as exc:
            if self.first_problem is None:
                self.first_problem = str(exc)
            return False
        return True

    def flush(self, timeout: float = 20.0) -> list[int]:
        """Wait up to `timeout` seconds for what is queued, try once more what failed; return the numbers missing."""
        deadline = time.monotonic() + timeout
        while self._queue.unfinished_tasks and time.monotonic() < deadline:
            time.sleep(0.02)
        waiting = [item.seq for item in tuple(self._queue.queue) if item is not None]
        for seq in sorted(self._failed):
            if time.monotonic() >= deadline or not self._copy_one(self._failed[seq]):
                break
            del self._failed[seq]
        return sorted({*waiting, *self._failed})

    def close(self) -> None:
        """Stop the copying thread once the queue is empty; does not wait for it."""
        self._queue.put(None)
