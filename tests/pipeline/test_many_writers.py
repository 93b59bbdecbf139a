"""Whole processes that share a store: however many, however started and whichever are killed, the same bytes."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from test_kill_and_resume import COMMAND, TORCHRUN, content, environment, precompute, run

from cskd_pipeline.storage import FolderStorage
from cskd_pipeline.store import StoreReader, list_writers, summarise

pytestmark = pytest.mark.slow

SEEDS = ("--seeds", "0:8")


@pytest.fixture
def whole(toy: Path, teacher_weights: Path, tmp_path: Path) -> Path:
    """A store of one process that nobody disturbed."""
    store = tmp_path / "whole.zarr"
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
        subprocess.Popen(
            precompute(toy, teacher_weights, store, *SEEDS, "--workers", str(number % 3)),
            env={**environment(), **launch},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number, launch in enumerate(launches)
    ]
    outcomes = [process.communicate() for process in processes]
    assert [process.returncode for process in processes] == [0] * 4, outcomes
    assert [bool(out) for out, _ in outcomes] == [True, False, False, False]  # one of them says the result
    assert_same(store, whole)
    assert list_writers(FolderStorage(store)) == []


def test_torchrun_restarts_after_a_rank_was_killed(
    toy: Path, teacher_weights: Path, tmp_path: Path, whole: Path
) -> None:
    store = tmp_path / "torchrun.zarr"
    launch = [*TORCHRUN[:-1], "--max-restarts", "3", "-m"]
    command = [*launch, "cskd_pipeline_cli", *precompute(toy, teacher_weights, store, *SEEDS)[len(COMMAND) :]]
    process = subprocess.Popen(
        command, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    storage = FolderStorage(store)
    killed = 0
    deadline = time.monotonic() + 200
    while process.poll() is None and killed < 2:
        assert time.monotonic() < deadline
        time.sleep(0.02)
        commits = len(list(store.glob("seed-*/commits/*.json")))
        writers = list_writers(storage)
        if commits >= 6 * (killed + 1) and len(writers) >= 2:
            try:
                os.kill(int(writers[0].split("-")[1]), signal.SIGKILL)  # the number is part of a writer's name
                killed += 1
            except ProcessLookupError:
                continue
            while (
                len(list_writers(storage))
                and process.poll() is None
                and commits + 5 > len(list(store.glob("seed-*/commits/*.json")))
            ):
                time.sleep(0.02)
    _, said = process.communicate()
    assert process.returncode == 0, said[-3000:]
    assert killed == 2
    assert_same(store, whole)


def test_a_store_whose_writer_is_killed_is_finished_by_one_that_waits(
    toy: Path, teacher_weights: Path, tmp_path: Path, whole: Path
) -> None:
    store = tmp_path / "waiting.zarr"
    processes = [
        subprocess.Popen(
            precompute(toy, teacher_weights, store, *SEEDS, "--rank", str(rank), "--world-size", "2"),
            env=environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        for rank in range(2)
    ]
    while len(list(store.glob("seed-*/commits/*.json"))) < 5:
        time.sleep(0.02)
        assert all(process.poll() is None for process in processes)
    os.killpg(processes[0].pid, signal.SIGKILL)
    processes[0].wait()
    assert processes[1].wait() == 0
    assert_same(store, whole)
