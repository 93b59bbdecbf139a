"""Whole processes that share a store: however many, however started and whichever are killed, the same bytes."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from commands import TORCHRUN, commits, content, precompute, run, start
from warm import wait_until

from cskd_pipeline.storage import FolderStorage
from cskd_pipeline.store import StoreReader, list_writers, summarise

pytestmark = pytest.mark.slow

SEEDS = ("--seeds", "0:8")


@pytest.fixture
def whole(toy: Path, teacher_weights: Path, session_cache: Path) -> Path:
    """A store of one process that nobody disturbed."""
    store = session_cache / "eight-seeds.zarr"
    if not store.exists():
        run(precompute(toy, teacher_weights, store, *SEEDS))
    return store


def assert_same(store: Path, whole: Path) -> None:
    assert content(store) == content(whole)
    assert summarise(StoreReader(store)).digest == summarise(StoreReader(whole)).digest


def test_processes_of_different_kinds_share_a_store(
    toy: Path, teacher_weights: Path, tmp_path: Path, whole: Path
) -> None:
    store = tmp_path / "shared.zarr"
    launches: list[dict[str, str]] = [
        {},
        {"SLURM_PROCID": "1", "SLURM_NTASKS": "4", "SLURM_LOCALID": "1"},
        {"JOB_COMPLETION_INDEX": "2", "CSKD_PRECOMPUTE_WORLD_SIZE": "4"},
        {"SLURM_ARRAY_TASK_ID": "4", "SLURM_ARRAY_TASK_MIN": "1", "SLURM_ARRAY_TASK_COUNT": "4", "SLURM_PROCID": "0"},
    ]
    processes = [
        start(precompute(toy, teacher_weights, store, *SEEDS, "--workers", str(number % 3)), variables=launch)
        for number, launch in enumerate(launches)
    ]
    assert [process.finish() for process in processes] == [0] * 4, [process.err.read_text() for process in processes]
    said = [bool(process.out.read_text()) for process in processes]
    assert said == [True, False, False, False]  # one of them says the result
    assert_same(store, whole)
    assert list_writers(FolderStorage(store)) == []


def test_torchrun_restarts_after_a_rank_was_killed(
    toy: Path, teacher_weights: Path, tmp_path: Path, whole: Path
) -> None:
    store = tmp_path / "torchrun.zarr"
    launch = [*TORCHRUN, "--max-restarts", "1"]
    process = start(precompute(toy, teacher_weights, store, *SEEDS), launch=launch)
    storage = FolderStorage(store)
    killed = False
    deadline = time.monotonic() + 200
    while process.poll() is None and not killed:
        assert time.monotonic() < deadline
        time.sleep(0.02)
        done, writers = commits(store), list_writers(storage)
        if done >= 6 and len(writers) >= 2:
            try:
                os.kill(int(writers[0].split("-")[1]), signal.SIGKILL)  # the number is part of a writer's name
                killed = True
            except ProcessLookupError:
                continue
    assert process.finish() == 0, process.err.read_text()[-3000:]
    assert killed
    assert_same(store, whole)


def test_a_store_whose_writer_is_killed_is_finished_by_one_that_waits(
    toy: Path, teacher_weights: Path, tmp_path: Path, whole: Path
) -> None:
    store = tmp_path / "waiting.zarr"
    first, second = (
        start(precompute(toy, teacher_weights, store, *SEEDS, "--rank", str(rank), "--world-size", "2"))
        for rank in range(2)
    )
    wait_until(first, lambda: commits(store) >= 5)
    first.signal(signal.SIGKILL)
    assert first.finish() == -signal.SIGKILL
    assert second.finish() == 0
    assert_same(store, whole)
