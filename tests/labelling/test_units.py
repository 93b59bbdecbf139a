"""Who does what: every block once, in order, whatever the number and the fate of the processes."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cskd_pipeline.errors import UsageError
from cskd_pipeline.labelling.units import ClaimedUnits, Unit
from cskd_pipeline.labels import FullEncoding, encodings_to_json
from cskd_pipeline.runtime.launcher import Rank, launched_rank
from cskd_pipeline.store import Claims, StoreHeader, StoreReader, StoreWriter

FULL = FullEncoding(positions=1, classes=2, dtype="float32")


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


def commit(writer: StoreWriter, unit: Unit) -> None:
    import torch

    logits = torch.zeros(4, 1, 2)
    crc = np.zeros(4, np.uint32)
    assert writer.write_block(*unit, {"full": FULL.encode(logits, logits[:, 0])}, crc, versions={})


def units(writer: StoreWriter, seeds: list[int], **settings: Any) -> ClaimedUnits:
    claims = Claims(writer.storage, beat_s=3600)
    claims._beat()
    return ClaimedUnits(writer, claims, seeds, sleep=lambda seconds: None, **settings)


def test_one_process_does_all_in_order(writer: StoreWriter) -> None:
    queue = units(writer, [3, 1])
    done = []
    assert queue.left() == 10
    for unit in queue.available():
        commit(writer, unit)
        queue.done(unit, 4)
        done.append(unit)
    assert done == [(seed, block) for seed in (3, 1) for block in range(5)]
    assert not queue.wait() and queue.left() == 0
    assert StoreReader(writer.storage).complete_seeds() == [1, 3]


@pytest.mark.parametrize("world", [1, 2, 3, 8])
def test_any_number_of_processes_do_every_block_once_whoever_dies(writer: StoreWriter, world: int) -> None:
    chance = random.Random(world)
    alive: dict[int, tuple[ClaimedUnits, Any]] = {}
    done: list[Unit] = []
    deaths = 0
    for _ in range(2000):
        rank = chance.randrange(world)
        if rank not in alive:
            queue = units(writer, [0, 1, 2], rank=rank, world=world)
            alive[rank] = queue, queue.available()
        queue, available = alive[rank]
        if chance.random() < 0.1 and deaths < 12:
            # It ends without a word, as far as others can tell: its sign of life is gone.
            writer.storage.delete(f".writers/{queue._claims.name}.json")
            del alive[rank]
            deaths += 1
            continue
        queue._claims._looked = -1e9
        unit = next(available, None)
        if unit is None:
            if not queue.wait():
                break
            alive[rank] = queue, queue.available()
            continue
        if chance.random() < 0.9:
            commit(writer, unit)
            done.append(unit)
            queue.done(unit, 4)
        else:
            writer.storage.delete(f".writers/{queue._claims.name}.json")
            del alive[rank]
    assert sorted(done) == [(seed, block) for seed in range(3) for block in range(5)]
    assert StoreReader(writer.storage).complete_seeds() == [0, 1, 2]


def test_processes_that_begin_together_take_different_blocks(writer: StoreWriter) -> None:
    queues = [units(writer, [0], rank=rank, world=5) for rank in range(5)]
    taken = [next(queue.available()) for queue in queues]
    assert sorted(taken) == [(0, block) for block in range(5)]
    assert next(units(writer, [0]).available(), None) is None
    assert units(writer, [0]).wait()


def test_only_what_is_asked_for_is_done(writer: StoreWriter) -> None:
    queue = units(writer, [0, 2], only={(2, 4), (0, 1)})
    assert queue.left() == 2
    done = []
    for unit in queue.available():
        commit(writer, unit)
        queue.done(unit, 4)
        done.append(unit)
    assert done == [(0, 1), (2, 4)]
    assert not queue.wait()


def test_ranks_come_from_options_or_from_the_launcher() -> None:
    slurm = {"SLURM_PROCID": "3", "SLURM_NTASKS": "8"}
    array = {"SLURM_ARRAY_TASK_ID": "14", "SLURM_ARRAY_TASK_MIN": "10", "SLURM_ARRAY_TASK_COUNT": "6"}
    torchrun = {"RANK": "1", "WORLD_SIZE": "4"}
    cases: list[tuple[int | None, int | None, dict[str, str], tuple[int, int]]] = [
        (None, None, {}, (0, 1)),
        (2, 3, {**slurm, **torchrun}, (2, 3)),
        (None, None, {**slurm, **torchrun}, (1, 4)),
        (None, None, slurm, (3, 8)),
        (None, None, {**slurm, **array}, (4 * 8 + 3, 48)),
        (None, None, {"SLURM_PROCID": "0", **array, "SLURM_ARRAY_TASK_STEP": "2"}, (2, 6)),
        (None, None, {"SLURM_PROCID": "0", **array, "SLURM_ARRAY_TASK_COUNT": "2"}, (4, 5)),
        (None, None, {"JOB_COMPLETION_INDEX": "5"}, (5, 6)),
        (None, 16, {"JOB_COMPLETION_INDEX": "5"}, (5, 16)),
    ]
    for rank, world, environment, expected in cases:
        assert launched_rank(rank, world, environment) == Rank(*expected)
    for rank, world, environment, said in [
        (1, None, {}, "--world-size"),
        (None, 3, {}, "without --rank"),
        (3, 3, {}, "rank 3 of 3"),
        (-1, 3, {}, "rank -1"),
        (None, None, {"RANK": "x", "WORLD_SIZE": "2"}, "RANK is 'x'"),
        (None, 2, {"JOB_COMPLETION_INDEX": "2"}, "rank 2 of 2"),
    ]:
        with pytest.raises(UsageError, match=said):
            launched_rank(rank, world, environment)


def test_counting_what_is_left_while_a_seed_becomes_complete(
    writer: StoreWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = units(writer, [0, 1, 2])
    for block in range(5):
        commit(writer, (0, block))
    real = StoreWriter.committed

    def committed(self: StoreWriter, seed: int) -> set[int]:
        queue._todo.pop(0, None)  # as the thread that claims blocks does, while this one waits for a listing
        return real(self, seed)

    monkeypatch.setattr(StoreWriter, "committed", committed)
    assert queue.left() == 10
