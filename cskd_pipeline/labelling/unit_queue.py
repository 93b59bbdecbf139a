"""Units handed out one by one, for processes that something watches: what a dead one held goes back at once."""

from __future__ import annotations

import heapq
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Protocol

from cskd_pipeline.labelling.units import POLL_S, Unit
from cskd_pipeline.store import Claims, StoreWriter
from cskd_pipeline.store.claims import HANG_S


class UnitQueue:
    """Who is at work on which unit of some seeds. Units go out in order, those that came back first.

    It knows the processes that ask, by names that are never used twice, and which worker (a seat, by number) each of
    them fills. Whether a unit may be worked on is decided by its claim in the store, and not here: a unit that goes out
    twice, because a process was thought dead, is computed once.
    """

    def __init__(
        self,
        seeds: list[int],
        *,
        again_s: float = POLL_S,
        hang_s: float = HANG_S,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """The units of these seeds, once `open` has said how many blocks each has.

        Args:
            seeds: in their order.
            again_s: after so long a unit that somebody else has a claim on is handed out again.
            hang_s: likewise for a unit that a process was given and has not finished.
            now: a clock, in seconds.
        """
        self._place = {seed: place for place, seed in enumerate(seeds)}
        self._seeds, self._again_s, self._hang_s, self._now = seeds, again_s, hang_s, now
        self._blocks: int | None = None
        self._free: list[int] = []  # a heap of numbers of units; some may be done, held or aside by now
        self._held: dict[int, tuple[str, float]] = {}
        self._aside: dict[int, float] = {}
        self._finished: set[int] = set()
        self._process: dict[int, str] = {}
        self._replaced: set[str] = set()
        self.made = 0
        """Units that were committed by processes that this queue gave them to."""

    def join(self, worker: int, process: str) -> None:
        """A process fills a worker's seat. One that did before is over: what it held is free."""
        before = self._process.get(worker)
        self._process[worker] = process
        if before not in (None, process):
            self._replaced.add(before)
            self.lost(before)

    def open(self, blocks: int, committed: Mapping[int, Collection[int]]) -> bool:
        """What a process found in the store: blocks a seed, and those that are committed. Whether it is the first."""
        first = self._blocks is None
        if first:
            self._blocks = blocks
            self._free = [*range(blocks * len(self._seeds))]
        for seed, done in committed.items():
            for block in done:
                self._finish(self._number((seed, block)))
        return first

    def take(self, process: str) -> Unit | None:
        """The next unit, now held by this process; None where there is none at the moment."""
        if process in self._replaced:
            return None
        now = self._now()
        due = [number for number, when in self._aside.items() if when <= now]
        due += [
            number for number, (holder, since) in self._held.items() if holder != process and now - since > self._hang_s
        ]
        for number in due:
            self._give_back(number)
        while self._free:
            number = heapq.heappop(self._free)
            if number not in self._finished and number not in self._held and number not in self._aside:
                self._held[number] = process, now
                return self._unit(number)
        return None

    def busy(self, process: str, unit: Unit) -> None:
        """A unit that this process was given is somebody else's, says its claim: look again in a while."""
        number = self._number(unit)
        if self._held.get(number, ("", 0.0))[0] == process:
            del self._held[number]
            self._aside[number] = self._now() + self._again_s

    def done(self, unit: Unit, *, made: bool) -> None:
        """A unit is committed; `made`: in this run."""
        self.made += self._finish(self._number(unit)) and made

    def lost(self, process: str) -> int:
        """A process is dead: what it held is free. Returns how many units that are."""
        held = [number for number, (holder, _) in self._held.items() if holder == process]
        for number in held:
            self._give_back(number)
        return len(held)

    def left(self) -> int | None:
        """How many units are not committed; None before the store was opened."""
        return None if self._blocks is None else self._blocks * len(self._seeds) - len(self._finished)

    def total(self) -> int:
        """How many units there are."""
        return (self._blocks or 0) * len(self._seeds)

    def _give_back(self, number: int) -> None:
        self._held.pop(number, None)
        self._aside.pop(number, None)
        heapq.heappush(self._free, number)

    def _finish(self, number: int) -> bool:
        """Whether that is news."""
        new = number not in self._finished
        self._finished.add(number)
        self._held.pop(number, None)
        self._aside.pop(number, None)
        return new

    def _number(self, unit: Unit) -> int:
        assert self._blocks is not None, "the store is opened first"
        return self._place[unit[0]] * self._blocks + unit[1]

    def _unit(self, number: int) -> Unit:
        assert self._blocks is not None
        return self._seeds[number // self._blocks], number % self._blocks


class Asked(Protocol):
    """What a process asks of a `UnitQueue`, wherever that is."""

    def take(self, process: str) -> Unit | None:
        """See `UnitQueue`."""

    def busy(self, process: str, unit: Unit) -> None:
        """See `UnitQueue`."""

    def done(self, unit: Unit, *, made: bool) -> None:
        """See `UnitQueue`."""

    def left(self) -> int | None:
        """See `UnitQueue`."""


class QueuedUnits:
    """Units from a queue, each claimed in the store too.

    So several queues, and processes without any, share a store as plain processes do; `status` shows who is at work;
    and a block is written by one process though the queue was mistaken about another's death.
    """

    def __init__(
        self,
        queue: Asked,
        writer: StoreWriter,
        claims: Claims,
        *,
        stop: threading.Event,
        poll_s: float = POLL_S,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Units of `queue` for the process that makes `claims`. When `stop` is set, the work ends as by Ctrl-C."""
        self._queue, self._writer, self._claims = queue, writer, claims
        self._stop, self._poll_s, self._sleep = stop, poll_s, sleep
        self.waiting = False
        """Whether this process has nothing to do but wait for others."""

    def left(self) -> int:
        """See `Units`."""
        return self._queue.left() or 0

    def available(self) -> Iterator[Unit]:
        """See `Units`."""
        while not self._stop.is_set():
            unit = self._queue.take(self._claims.name)
            if unit is None:
                return
            if not self._claims.take(*unit):
                self._queue.busy(self._claims.name, unit)
            elif self._writer.is_committed(*unit):  # by others, of whom the queue has not heard
                self.done(unit, 0)
            else:
                self.waiting = False
                yield unit

    def confirm(self, unit: Unit) -> None:
        """See `Units`."""
        self._claims.confirm(*unit)

    def done(self, unit: Unit, crops: int) -> None:
        """See `Units`."""
        self._claims.release(*unit)
        if self._writer.is_committed(*unit):
            self._queue.done(unit, made=crops > 0)
        else:  # another process has taken the claim over, and is at work on it
            self._queue.busy(self._claims.name, unit)

    def progress(self, crops: int) -> None:
        """See `Units`.

        Raises:
            KeyboardInterrupt: the work is to stop.
        """
        self._claims.progress(crops)
        if self._stop.is_set():
            raise KeyboardInterrupt

    def wait(self) -> bool:
        """See `Units`.

        Raises:
            KeyboardInterrupt: the work is to stop.
        """
        if not self.left():
            return False
        self.waiting = True
        self.progress(0)  # waiting is no hanging
        self._claims.clear_dead()
        self._sleep(self._poll_s)
        return True
