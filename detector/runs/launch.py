"""Processes that Lightning starts for a run: what they are told, and when they end."""

import os
import threading
import time


def end_with_parent(parent: int, seconds: float = 2.0) -> None:
    """From now on end this process when ``parent``, which started it, is gone, killed say; it is looked for every so often.

    Otherwise a process that waits for the others of a run in a collective can wait for a long time.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(seconds)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


# What the processes that Lightning starts must know of their parent: where it writes, and its number.
RUN_DIR_VARIABLE, PARENT_VARIABLE = "DETECTOR_RUN_DIR", "DETECTOR_PARENT"
