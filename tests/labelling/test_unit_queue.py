"""Units from a queue: in order, none lost and none twice, whoever dies and whoever else fills the store."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from cskd_pipeline.labelling.unit_queue import QueuedUnits, UnitQueue
from cskd_pipeline.labelling.units import Unit
from cskd_pipeline.labels import FullEncoding, encodings_to_json
from cskd_pipeline.store import Claims, StoreHeader, StoreReader, StoreWriter
from cskd_pipeline.store.claims import forget_writer, list_claims

FULL = FullEncoding(positions=1, classes=2, dtype="float32")


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def opened(seeds: list[int], blocks: int, *, done: dict[int, set[int]] | None = None) -> tuple[UnitQueue, Clock]:
    clock = Clock()
    queue = UnitQueue(seeds, again_s=2, hang_s=100, now=clock)
    queue.join(0, "a")
    queue.join(1, "b")
    assert queue.open(blocks, done or {})
    return queue, clock


def taken(queue: UnitQueue, process: str) -> list[Unit]:
    return list(iter(lambda: queue.take(process), None))


def test_units_go_out_in_order_without_those_that_are_committed() -> None:
    queue, _ = opened([5, 2], 3, done={5: {1}, 2: {0, 2}})
    assert queue.left() == 3 and queue.total() == 6
    assert taken(queue, "a") == [(5, 0), (5, 2), (2, 1)]


def test_nothing_goes_out_before_somebody_has_opened_the_store() -> None:
    queue = UnitQueue([0])
    queue.join(0, "a")
    assert queue.take("a") is None and queue.left() is None and queue.total() == 0
    assert queue.open(1, {})
    assert not queue.open(1, {}), "the second finds it open"
    assert queue.take("a") == (0, 0)


def test_a_store_that_is_complete_has_nothing_to_do() -> None:
    queue, _ = opened([0, 1], 2, done={0: {0, 1}, 1: {0, 1}})
    assert queue.take("a") is None and queue.left() == 0


def test_what_a_later_process_finds_committed_is_left_out() -> None:
    queue, _ = opened([0], 4)
    assert queue.take("a") == (0, 0)
    assert not queue.open(4, {0: {0, 1}})
    assert taken(queue, "b") == [(0, 2), (0, 3)] and queue.left() == 2


def test_what_a_dead_process_held_goes_out_first() -> None:
    queue, _ = opened([0], 6)
    assert [queue.take(process) for process in "abab"] == [(0, 0), (0, 1), (0, 2), (0, 3)]
    queue.done((0, 0), made=True)
    assert queue.lost("a") == 1
    assert queue.lost("a") == 0, "reported twice"
    assert taken(queue, "b") == [(0, 2), (0, 4), (0, 5)]


def test_a_process_that_takes_the_seat_of_another_frees_what_that_held() -> None:
    queue, _ = opened([0], 4)
    assert [queue.take("a"), queue.take("a"), queue.take("b")] == [(0, 0), (0, 1), (0, 2)]
    queue.join(0, "a2")
    assert queue.take("a") is None, "it is over"
    assert [queue.take("a2"), queue.take("b")] == [(0, 0), (0, 1)]
    assert queue.lost("a") == 0, "Ray may be slower than the new process"
    queue.done((0, 0), made=True)  # the old process had it written before it died
    queue.done((0, 0), made=True)
    assert queue.made == 1 and queue.left() == 3
    queue.join(0, "a2")
    assert taken(queue, "b") == [(0, 3)], "the same process may say so again"


def test_a_process_that_was_out_of_reach_goes_on() -> None:
    queue, _ = opened([0], 3)
    assert queue.take("a") == (0, 0)
    assert queue.lost("a") == 1
    assert queue.take("b") == (0, 0)
    queue.done((0, 0), made=True)
    assert taken(queue, "a") == [(0, 1), (0, 2)]


def test_a_unit_that_others_are_at_work_on_comes_back_later() -> None:
    queue, clock = opened([0], 2)
    unit = queue.take("a")
    assert unit == (0, 0)
    queue.busy("a", unit)
    queue.busy("b", unit)
    assert taken(queue, "b") == [(0, 1)] and queue.left() == 2
    clock.now = 2
    assert taken(queue, "a") == [(0, 0)]
    queue.done((0, 0), made=False)
    assert queue.left() == 1 and queue.made == 0


def test_a_unit_that_takes_too_long_is_looked_at_by_another() -> None:
    queue, clock = opened([0], 1)
    assert queue.take("a") == (0, 0)
    clock.now = 101
    assert queue.take("a") is None, "not by the same"
    assert queue.take("b") == (0, 0)


@pytest.fixture
def writer(tmp_path: Path) -> StoreWriter:
    header = StoreHeader(
        recipe={"name": "plain"},
        data={"name": "toy", "split": "train", "samples": 20, "classes": 2, "digest": "ab"},
        teacher={},
        grid=(1, 1),
        encodings=encodings_to_json({"full": FULL}),
        block=4,
    )
    return StoreWriter(tmp_path / "s.zarr", header)


class Process:
    """One that computes units of a queue, a step at a time."""

    def __init__(self, queue: UnitQueue, writer: StoreWriter, worker: int) -> None:
        self.queue, self.writer = queue, writer
        self.claims = Claims(writer.storage, beat_s=3600)
        self.claims._beat()
        queue.join(worker, self.claims.name)
        queue.open(writer.header.blocks, {seed: writer.committed(seed) for seed in (0, 1, 2)})
        self.stop = threading.Event()
        self.units = QueuedUnits(queue, writer, self.claims, stop=self.stop, sleep=lambda seconds: None)
        self.available: Iterator[Unit] = self.units.available()

    def die(self) -> None:
        """As `ray_engine` hears of it."""
        forget_writer(self.writer.storage, self.claims.name)
        self.queue.lost(self.claims.name)

    def commit(self, unit: Unit) -> None:
        self.units.confirm(unit)
        logits, crc = torch.zeros(4, 1, 2), np.zeros(4, np.uint32)
        assert self.writer.write_block(*unit, {"full": FULL.encode(logits, logits[:, 0])}, crc, versions={})
        self.units.done(unit, 4)


@pytest.mark.parametrize("queues, workers", [(1, 1), (1, 4), (2, 1), (3, 3)])
def test_every_block_is_made_once_whoever_dies_and_however_many_queues_there_are(
    writer: StoreWriter, queues: int, workers: int
) -> None:
    chance = random.Random(f"{queues} {workers}")
    clock = Clock()
    kept = [UnitQueue([0, 1, 2], now=clock) for _ in range(queues)]
    alive: dict[tuple[int, int], Process] = {}
    made: list[Unit] = []
    for _ in range(3000):
        clock.now += 1
        seat = chance.randrange(queues), chance.randrange(workers)
        process = alive.get(seat)
        if process is None:
            process = alive[seat] = Process(kept[seat[0]], writer, seat[1])
        unit = next(process.available, None)
        if unit is None:
            if not process.units.wait():
                break
            process.available = process.units.available()
        elif chance.random() < 0.2:
            process.die()
            del alive[seat]
        else:
            process.commit(unit)
            made.append(unit)
    assert sorted(made) == [(seed, block) for seed in (0, 1, 2) for block in range(5)]
    assert StoreReader(writer.storage).complete_seeds() == [0, 1, 2]
    assert sum(queue.made for queue in kept) == len(made)


def test_a_unit_that_another_process_has_taken_over_is_not_done(writer: StoreWriter) -> None:
    queue, other = UnitQueue([0, 1, 2], again_s=0), UnitQueue([0, 1, 2])
    ours = Process(queue, writer, 0)
    unit = next(ours.available)
    forget_writer(writer.storage, ours.claims.name)  # it seems dead, to others
    theirs = Process(other, writer, 0)
    assert next(theirs.available) == unit
    ours.units.done(unit, 4)  # what `work` does then
    assert queue.left() == 15 and queue.made == 0
    theirs.commit(unit)
    assert next(ours.available) == (0, 1) and queue.left() == 14


def test_a_stop_ends_the_work_as_an_interruption_does(writer: StoreWriter) -> None:
    process = Process(UnitQueue([0, 1, 2]), writer, 0)
    unit = next(process.available)
    process.units.progress(2)
    process.stop.set()
    for stopped in (lambda: process.units.progress(2), process.units.wait):
        with pytest.raises(KeyboardInterrupt):
            stopped()
    assert next(process.available, None) is None
    assert [(claim.seed, claim.block) for claim in list_claims(writer.storage)] == [unit]
