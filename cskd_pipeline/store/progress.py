"""How far a store is and who is working on it, from file names and heartbeats alone; safe while others write."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Any

from cskd_pipeline.runtime.process_name import has_ended
from cskd_pipeline.seeds import parse_seeds
from cskd_pipeline.store.claims import EXPIRY_S, list_claims, list_writers, read_writer
from cskd_pipeline.store.reader import StoreReader


@dataclasses.dataclass(frozen=True, slots=True)
class SeedProgress:
    """A seed that is begun, or that an active writer was asked for.

    Of its blocks `done` are committed and hold `crops`, `claimed` are an active writer's, and `missing` are neither.
    """

    seed: int
    done: int
    claimed: int
    missing: int
    crops: int


@dataclasses.dataclass(frozen=True, slots=True)
class WriterProgress:
    """A writer that has not exited cleanly.

    Attributes:
        seeds: those it was asked for, as on the command line.
        crops_s: crops per second since it began.
        silent_s: seconds since its last heartbeat, if its machine's clock and this one's agree.
        at_work: whether that heartbeat is recent.
    """

    name: str
    host: str
    seeds: str
    crops_s: float
    silent_s: float
    at_work: bool


@dataclasses.dataclass(frozen=True, slots=True)
class StoreProgress:
    """The progress of a store.

    Attributes:
        blocks: blocks of a complete seed.
        seeds: those begun or asked for, ascending.
        writers: all that have not exited cleanly.
        block_crops: mean crops per block.
    """

    blocks: int
    seeds: list[SeedProgress]
    writers: list[WriterProgress]
    block_crops: int

    @property
    def complete(self) -> list[int]:
        """Seeds a student may train on."""
        return [seed.seed for seed in self.seeds if seed.done == self.blocks]

    @property
    def crops_s(self) -> float:
        """Crops per second of all active writers together."""
        return sum(writer.crops_s for writer in self.writers if writer.at_work)

    @property
    def left_s(self) -> float | None:
        """Seconds left at the current rate; None if no writer is active."""
        left = sum(seed.claimed + seed.missing for seed in self.seeds)
        return left * self.block_crops / self.crops_s if self.crops_s else None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        left_s = self.left_s
        return {
            "blocks": self.blocks,
            "complete_seeds": self.complete,
            "seeds": [dataclasses.asdict(seed) for seed in self.seeds],
            "writers": [dataclasses.asdict(writer) for writer in self.writers],
            "crops_s": round(self.crops_s, 1),
            "left_s": None if left_s is None else round(left_s),
        }


def progress_of(store: StoreReader, *, now: Callable[[], float] = time.time) -> StoreProgress:
    """The progress of a store; `now` is a clock in seconds since the epoch."""
    writers = []
    for name in list_writers(store.storage):
        status = read_writer(store.storage, name)
        if status is not None:
            silent = max(0.0, now() - status.unix_time)
            rate = status.crops / status.seconds if status.seconds > 0 else 0.0
            alive = silent < EXPIRY_S and not has_ended(name)
            writers.append(WriterProgress(name, status.host, status.seeds, rate, silent, alive))
    at_work = {writer.name for writer in writers if writer.at_work}
    claimed: dict[int, set[int]] = {}
    for claim in list_claims(store.storage):
        if claim.writer in at_work:
            claimed.setdefault(claim.seed, set()).add(claim.block)
    begun = store.begun()
    asked = {seed for writer in writers if writer.at_work for seed in _seeds(writer.seeds)}
    seeds = []
    for seed in sorted({*begun, *asked}):
        done = begun.get(seed, [])
        busy = len(claimed.get(seed, set()) - {*done})
        missing = store.header.blocks - len(done) - busy
        crops = sum(len(store.header.rows(block)) for block in done)
        seeds.append(SeedProgress(seed, len(done), busy, missing, crops))
    return StoreProgress(store.header.blocks, seeds, writers, store.header.samples // store.header.blocks)


def _seeds(text: str) -> list[int]:
    try:
        return parse_seeds(text) if text else []
    except ValueError:
        return []
