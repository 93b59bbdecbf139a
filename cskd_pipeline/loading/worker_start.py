"""How processes begin and end that make crops.

They are forked, as a rule: at once, and sharing the parent's memory. Images in object storage rule that out, for a
fork of a process that has used it waits for threads that it has not inherited. Such workers are forked from a server
instead, a fresh process that has the imports and nothing else; it is started once, and serves all loaders.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.forkserver
import multiprocessing.resource_tracker
import os
import signal
import threading

from cskd_pipeline.data import SampleIndex

_IMPORTS = ["cskd_pipeline.loading.making"]
"""Modules that the fork server imports."""

_GRACE_S = 15
"""Seconds that a worker keeps working after SIGTERM, so that the parent can end an update and write a checkpoint."""


def start_method(index: SampleIndex) -> str | None:
    """How to start workers that read these images: None is the platform's way, or the program's own.

    The server, where there has to be one, is on its way when this returns.
    """
    if not index.remote:
        return None
    multiprocessing.set_forkserver_preload(_IMPORTS)
    multiprocessing.resource_tracker.ensure_running()  # not below, where it would unblock the signal
    # A server that dies of a scheduler's SIGTERM to all takes the workers along before the parent has finished.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        multiprocessing.forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return "forkserver"


def leave_signals_to_the_parent() -> None:
    """Let the parent decide what is finished: Ctrl-C and a scheduler's SIGTERM reach the whole process group."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Not ignored for good: it is also how Python ends a worker that is left over when the parent exits.
    signal.signal(signal.SIGTERM, lambda number, frame: signal.alarm(_GRACE_S))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})  # as a server's forks inherit it
    parent = multiprocessing.parent_process()
    if parent is not None and parent.pid != os.getppid():
        # A worker ends when it has lost who forked it; that is the server, which waits for its forks to end.
        threading.Thread(target=_end_with, args=[parent], daemon=True).start()


def _end_with(parent: multiprocessing.process.BaseProcess) -> None:
    parent.join()
    os._exit(1)
