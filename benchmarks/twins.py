"""The same actions in two processes that take turns: freed memory kept, as commands have it, and glibc as it comes."""

from __future__ import annotations

import contextlib
import dataclasses
import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, Self

SETTINGS = ("keep", "system")
"""Values of CSKD_ALLOCATOR; see `cskd_pipeline.runtime.allocator`."""

Act = Callable[..., Any]
Prepare = Callable[..., AbstractContextManager[Act]]


@dataclasses.dataclass(frozen=True, slots=True)
class Spent:
    """What an action took: time on the wall and of the process's threads, and the largest memory so far; its answer."""

    wall_s: float
    user_s: float
    system_s: float
    peak_mib: float
    answer: Any

    @property
    def processor_s(self) -> float:
        """User and system time."""
        return self.user_s + self.system_s


class Twins:
    """Two new processes, each with what `prepare(*arguments)` gives it: a function that does what it is told."""

    def __init__(self, prepare: Prepare, *arguments: Any) -> None:
        """Start them one after the other; they get ready before the first `measure`."""
        context = multiprocessing.get_context("spawn")  # the setting comes before torch and its threads
        self._processes = []
        self._connections: dict[str, Connection] = {}
        for setting in SETTINGS:
            self._connections[setting], theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, setting, prepare, arguments), daemon=False)
            process.start()
            theirs.close()
            self._processes.append(process)

    def measure(self, *what: Any) -> dict[str, Spent]:
        """What `act(*what)` takes in both, one after the other."""
        spent = {}
        for setting, connection in self._connections.items():
            connection.send(what)
            spent[setting] = connection.recv()
        return spent

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for connection in self._connections.values():
            connection.close()
        for process in self._processes:
            process.join()


def allocation(turns: Sequence[Mapping[str, Spent]]) -> dict[str, float]:
    """Over the turns of an action, of the process that keeps freed memory and next to the other.

    `system_share` and `system_share_as_it_comes` are of all their processor time; `faster` is the median of the other's
    processor time over that of the first, `peak_ratio` that of the first's peak of memory over the other's.
    """

    def share(setting: str) -> float:
        return sum(turn[setting].system_s for turn in turns) / sum(turn[setting].processor_s for turn in turns)

    return {
        "system_share": share("keep"),
        "system_share_as_it_comes": share("system"),
        "faster": statistics.median(turn["system"].processor_s / turn["keep"].processor_s for turn in turns),
        "peak_ratio": statistics.median(turn["keep"].peak_mib / turn["system"].peak_mib for turn in turns),
    }


def _serve(orders: Connection, setting: str, prepare: Prepare, arguments: tuple[Any, ...]) -> None:
    from cskd_pipeline.runtime.allocator import keep_freed_memory

    multiprocessing.set_start_method(None, force=True)  # workers as everywhere else
    keep_freed_memory(setting)
    with prepare(*arguments) as act, contextlib.suppress(EOFError):  # the other end is closed: no more is wanted
        while True:
            orders.send(_measured(act, orders.recv()))


def _measured(act: Act, what: tuple[Any, ...]) -> Spent:
    before, began = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    answer = act(*what)
    wall_s, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF)
    user_s, system_s = after.ru_utime - before.ru_utime, after.ru_stime - before.ru_stime
    return Spent(wall_s, user_s, system_s, after.ru_maxrss / 1024, answer)
