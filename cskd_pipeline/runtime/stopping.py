"""Ctrl-C and SIGTERM as a wish to stop: the loop asks between updates, and a second Ctrl-C ends the process."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType


def never() -> bool:
    """False: a stop that never comes."""
    return False


@contextlib.contextmanager
def stop_on_signals(*, after: str = "this update") -> Iterator[Callable[[], bool]]:
    """A function that tells whether SIGINT or SIGTERM has arrived since; the old handlers return at the end.

    The first signal is only noted. The second SIGINT raises KeyboardInterrupt where the program is. Outside the
    main thread, where Python allows no handlers, the function is always False. `after` says what is finished first.
    """
    if threading.current_thread() is not threading.main_thread():
        yield never
        return
    requested = threading.Event()

    def note(number: int, frame: FrameType | None) -> None:
        if requested.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        if not requested.is_set():
            requested.set()
            # Not print: the signal may have come in the middle of a write to sys.stderr, which cannot be entered twice.
            with contextlib.suppress(OSError):
                os.write(2, f"stopping after {after}; once more to abort\n".encode())

    old = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield requested.is_set
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
