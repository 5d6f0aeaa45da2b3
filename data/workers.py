"""Start and set-up of dataloader worker processes: one thread each, and a clean end after signals."""

import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import current_process, parent_process, resource_tracker
from multiprocessing.process import BaseProcess
from multiprocessing.util import get_temp_dir

import cv2
import torch
from lightning.pytorch.utilities import rank_zero_info

from detector.text import plural

IGNORED_SIGNALS = {signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2}  # by workers
HELD_SIGNALS = IGNORED_SIGNALS | {signal.SIGTERM}  # while a worker starts
MAX_SOCKET_PATH = 103  # bytes that every system allows in the path of a socket; Linux has 4 more


def check_temporary_folder() -> None:
    """Raise a ValueError if the path of the temporary folder is too long for the sockets between the processes.

    Without the check, training would wait for the first batch forever.
    """
    folder = tempfile.gettempdir()
    if len(f"{folder}/pymp-12345678/listener-12345678".encode()) > MAX_SOCKET_PATH:
        raise ValueError(
            f"the temporary folder {folder} has too long a name for workers to send batches through; set TMPDIR to another "
            "folder, or data.num_workers to 0"
        )


@contextmanager
def held_signals(start_method: str) -> Iterator[None]:
    """Hold back signals from worker processes that start in this context, until ``init_worker`` handles them.

    Otherwise a signal to every process of a run, as Ctrl-C is, could end a worker that has just started. A new process has
    the signal mask of the thread that starts it. This process gets the signals when the context ends; none is lost.

    Processes that a fork server starts have its mask instead, so ``start_method`` must be ``fork`` or ``spawn``.
    """
    if start_method != "fork":
        resource_tracker.ensure_running()  # its start, by the first spawned process, would unblock the signals
    before = signal.pthread_sigmask(signal.SIG_BLOCK, HELD_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def limited_workers(num_workers: int, processes: int = 1) -> int:
    """Return ``num_workers``, or the CPU cores that each of ``processes`` has, with one line in the log, if that is lower.

    More workers than cores are slower and need more memory. Samples do not depend on their number.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if processes > 1 and cores < int(os.environ.get("SLURM_CPUS_ON_NODE", 0)):
        processes = 1  # SLURM has given each process cores of its own, and only these are counted
    most = max(cores // processes, 1)
    if num_workers > most:
        where = plural(cores, "CPU core") + (f" for {processes} processes" if processes > 1 else "")
        started = plural(most, "worker is", "workers are") + (" started by each" if processes > 1 else " started")
        rank_zero_info(f"data.num_workers is {num_workers} on {where}: {started}, for the same samples")
    return min(num_workers, most)


def init_worker(worker_id: int) -> None:
    """Set up a worker process: one thread, since more would compete with the other workers; and its signals.

    Ctrl-C and the signals of a cluster often reach every process of a run. Workers ignore them, so that the training
    process can finish its step; they end when that process terminates them, or has ended itself.
    """
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    for signum in IGNORED_SIGNALS:
        signal.signal(signum, signal.SIG_IGN)
    # A forked worker inherits the name of the main process's temporary folder, and must not remove that folder.
    current_process()._config.pop("tempdir", None)  # type: ignore[attr-defined]  # a private name of Python
    # The main process terminates its workers when it ends. torch's own handler would leave this folder behind.
    folder = get_temp_dir()  # has the socket that batches go through
    parent = parent_process()
    if hasattr(signal, "sigwaitinfo"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        parent_id = parent.pid  # type: ignore[union-attr]  # a worker has a parent
        threading.Thread(target=_exit_on_sigterm_from, args=(parent_id, folder), daemon=True).start()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, IGNORED_SIGNALS)
    else:  # macOS
        signal.signal(signal.SIGTERM, lambda signum, frame: _remove_and_exit(folder))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HELD_SIGNALS)
    # torch notices only the end of a main process that was alive after this set-up.
    threading.Thread(target=_exit_after, args=(parent, folder), daemon=True).start()


def _exit_on_sigterm_from(parent: int, folder: str) -> None:
    """Wait for a SIGTERM from process ``parent``, then exit. A SIGTERM from any other process is ignored."""
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        pass
    _remove_and_exit(folder)


def _exit_after(parent: BaseProcess, folder: str) -> None:
    """Wait until process ``parent`` has ended, then exit."""
    parent.join()
    _remove_and_exit(folder)


def _remove_and_exit(folder: str) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(0)
