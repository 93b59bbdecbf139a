"""Making the next items while the present one is in use."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterator
from typing import TypeVar

import torch

Item = TypeVar("Item")


def ahead(items: Iterator[Item], *, depth: int, device: torch.device) -> Generator[Item]:
    """The same items, made in a thread of their own, up to `depth` of them (and the one in the making) beforehand.

    What `items` raises is raised here, after the items before it. A caller that stops early waits for the item in the
    making; `items` is closed then. `device` is the current GPU in that thread, if it is one.
    """
    ready: queue.Queue[tuple[Item] | BaseException | None] = queue.Queue(depth)
    over = threading.Event()
    gpu = None
    if device.type == "cuda":
        gpu = torch.cuda.current_device() if device.index is None else device.index

    def hand_out(what: tuple[Item] | BaseException | None) -> bool:
        while not over.is_set():
            try:
                ready.put(what, timeout=0.1)
                return True
            except queue.Full:
                pass
        return False

    def make() -> None:
        try:
            if gpu is not None:
                torch.cuda.set_device(gpu)
            for item in items:
                if not hand_out((item,)):
                    break
            getattr(items, "close", lambda: None)()
        except BaseException as error:
            hand_out(error)
        else:
            hand_out(None)

    thread = threading.Thread(target=make, daemon=True)
    thread.start()
    try:
        while (found := ready.get()) is not None:
            if isinstance(found, BaseException):
                try:
                    raise found
                finally:
                    del found  # or it and this frame would hold each other
            yield found[0]
    finally:
        over.set()
        if thread is not threading.current_thread():  # the collector of garbage may close this from any thread
            thread.join()
