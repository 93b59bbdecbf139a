"""Which units of work this process does next: nobody plans, everybody looks at the store."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator

from cskd_pipeline.store import Claims, StoreWriter

Unit = tuple[int, int]
"""(seed, block)."""

POLL_S = 2.0
_REFRESH_S = 5.0


class ClaimedUnits:
    """Units that this process claims in the store, in their order, so that seeds are completed one after another.

    Of the next units that nobody has, as many as there are processes, process `rank` begins with number `rank`: so few
    of them reach for the same one. Nothing else depends on `rank` or `world`, which may change while others work.
    """

    def __init__(
        self,
        writer: StoreWriter,
        claims: Claims,
        seeds: list[int],
        *,
        rank: int = 0,
        world: int = 1,
        only: Collection[Unit] | None = None,
        poll_s: float = POLL_S,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """The units of these seeds that are not committed, or those among them that are in `only`."""
        self._writer, self._claims = writer, claims
        self._rank, self._world, self._poll_s, self._sleep = rank, world, poll_s, sleep
        self._blocks = writer.header.blocks
        self._unasked = {
            seed: set() if only is None else {block for block in range(self._blocks) if (seed, block) not in only}
            for seed in seeds
        }
        self._todo = dict.fromkeys(seeds)  # seeds with uncommitted blocks, in order
        self._committed: dict[int, tuple[float, set[int]]] = {}

    def left(self) -> int:
        """How many units are not committed, as far as this process knows."""
        return sum(self._blocks - len(self._done_of(seed, refresh=False)) for seed in [*self._todo])

    def available(self) -> Iterator[Unit]:
        """Units to do, each claimed for this process when it comes; ends when none can be had at the moment."""
        while True:
            unit = self._claim_next()
            if unit is None:
                return
            yield unit

    def confirm(self, unit: Unit) -> None:
        """Raise LostClaimError unless this process still has its claim on the unit."""
        self._claims.confirm(*unit)

    def done(self, unit: Unit, crops: int) -> None:
        """Note that a unit is committed, or somebody else's by now."""
        self._committed.pop(unit[0], None)
        self._claims.release(*unit)

    def progress(self, crops: int) -> None:
        """Note that some crops of a unit are made."""
        self._claims.progress(crops)

    def wait(self) -> bool:
        """Wait a little; returns whether there is still something to do, by this process or another."""
        self._committed.clear()
        self._drop_complete()
        if not self._todo:
            return False
        self._claims.progress(0)  # waiting is no hanging
        self._claims.clear_dead()
        self._sleep(self._poll_s)
        self._committed.clear()
        return True

    def _claim_next(self) -> Unit | None:
        while True:
            self._drop_complete()
            free = self._free()
            if not free:
                return None
            start = self._rank % len(free)
            for unit in [*free[start:], *free[:start]]:
                if self._claims.take(*unit):
                    if not self._writer.is_committed(*unit):
                        return unit
                    self.done(unit, 0)
                    break
            # What was free has gone to others since this process looked: look again.
            self._committed.clear()

    def _free(self) -> list[Unit]:
        """The next units that nobody has, at most as many as there are processes."""
        taken = self._claims.others()
        free: list[Unit] = []
        for seed in self._todo:
            done = self._done_of(seed)
            free += [(seed, block) for block in range(self._blocks) if block not in done and (seed, block) not in taken]
            if len(free) >= self._world:
                break
        return free[: self._world]

    def _done_of(self, seed: int, *, refresh: bool = True) -> set[int]:
        known = self._committed.get(seed)
        old = known is not None and len(known[1]) < self._blocks and time.monotonic() - known[0] > _REFRESH_S
        if known is None or (old and refresh):
            known = self._committed[seed] = (time.monotonic(), self._writer.committed(seed) | self._unasked[seed])
        return known[1]

    def _drop_complete(self) -> None:
        """Forget seeds that are complete, from the first on: they stay so."""
        for seed in [*self._todo]:
            if len(self._done_of(seed)) < self._blocks:
                return
            del self._todo[seed]
            self._committed.pop(seed, None)
