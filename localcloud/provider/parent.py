"""Ends this process when the engine that started it is gone, however it went: a killed one cannot say goodbye."""

from __future__ import annotations

import os
import threading
import time

ENGINE_PID = "LOCALCLOUD_ENGINE_PID"
_SECONDS = 0.5


def end_with_parent() -> None:
    """Watch the parent process from a thread of its own and end this one at once when it is gone.

    Asking is what works everywhere. Linux could send a signal instead (PR_SET_PDEATHSIG), but it does so when the
    parent's *thread* ends, and the engine's Go runtime ends threads while the engine lives on.
    """
    # The launcher knows the engine from its first moment on; later on it could be gone already.
    parent = int(os.environ.get(ENGINE_PID) or os.getppid())

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_SECONDS)
        # Not sys.exit: calls in flight would go on making resources that nobody records any more.
        os._exit(1)

    threading.Thread(target=watch, name="engine-watch", daemon=True).start()
