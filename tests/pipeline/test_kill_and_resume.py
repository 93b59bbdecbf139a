"""Whole commands, killed without warning and run again, end in the bytes of an uninterrupted run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

COMMAND = [sys.executable, "-m", "cskd_pipeline_cli"]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
STUDENT = ["--student", "deit_ti"]
for pair in ("img_size=32", "patch_size=8", "embed_dim=24", "depth=2", "num_heads=2"):
    STUDENT += ["--student-arg", pair]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def run(command: list[str]) -> None:
    finished = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr[-3000:]


def kill_when(command: list[str], ready: Callable[[], bool]) -> None:
    """Start a command and kill it, and everything it started, as soon as `ready`."""
    process = subprocess.Popen(
        command, env=environment(), start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 300
    while not ready():
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline, "it never came so far"
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def precompute(toy: Path, weights: Path, store: Path, *options: str) -> list[str]:
    teacher = ["--teacher", "test_resnet", "--teacher-weights", str(weights), "--teacher-arg", "output_stride=8"]
    recipe = ["--size", "32", "--recipe-arg", "group=16", "--block", "16", "--chunk", "16"]
    data = ["--data", str(toy), "--workers", "1", "--device", "cpu"]
    return [*COMMAND, "precompute", *data, *teacher, *recipe, "--seeds", "0:20", "--out", str(store), *options]


def content(path: Path) -> dict[str, bytes]:
    return {str(p.relative_to(path)): p.read_bytes() for p in path.rglob("*") if p.is_file()}


@pytest.mark.slow
def test_precompute_killed_twice_gives_the_same_store(toy: Path, teacher_weights: Path, tmp_path: Path) -> None:
    run(precompute(toy, teacher_weights, tmp_path / "whole.zarr"))
    store = tmp_path / "killed.zarr"
    for blocks in (3, 31):
        command = precompute(toy, teacher_weights, store)
        kill_when(command, lambda blocks=blocks: len(list(store.glob("seed-*/commits/*.json"))) >= blocks)
    run(precompute(toy, teacher_weights, store))
    assert content(store) == content(tmp_path / "whole.zarr")
    run([*COMMAND, "verify", str(store)])


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_training_killed_and_resumed_gives_the_same_weights(
    toy: Path, teacher_weights: Path, tmp_path: Path, processes: int
) -> None:
    store = tmp_path / "labels.zarr"
    run(precompute(toy, teacher_weights, store, "--seeds", "0:2"))
    launch = COMMAND if processes == 1 else [*TORCHRUN, "cskd_pipeline_cli"]
    training = [*launch, "train", "--data", str(toy), "--labels", str(store), *STUDENT, "--epochs", "8"]
    training += [
        "--batch-size",
        "12",
        "--warmup-epochs",
        "1",
        "--ema-decay",
        "0.9",
        "--workers",
        "1",
        "--device",
        "cpu",
    ]

    run([*training, "--out", str(tmp_path / "whole")])
    killed = tmp_path / "killed"
    kill_when([*training, "--out", str(killed)], lambda: (killed / "last.pt").exists())
    assert len((killed / "metrics.jsonl").read_text().splitlines()) < 8
    run([*training, "--out", str(killed), "--resume"])

    states = [torch.load(folder / "last.pt", weights_only=True) for folder in (tmp_path / "whole", killed)]
    for state in states:
        for name in ("seconds", "waited_s"):
            state["progress"].pop(name, None)
    assert_equal(*states)


@pytest.mark.slow
def test_a_preempted_process_group_leaves_a_checkpoint(toy: Path, teacher_weights: Path, tmp_path: Path) -> None:
    store, out = tmp_path / "labels.zarr", tmp_path / "run"
    run(precompute(toy, teacher_weights, store, "--seeds", "0:2"))
    training = [*COMMAND, "train", "--data", str(toy), "--labels", str(store), *STUDENT, "--epochs", "400"]
    training += ["--batch-size", "12", "--workers", "1", "--device", "cpu", "--checkpoint-every", "400"]
    training += ["--eval-split", "none", "--out", str(out)]
    process = subprocess.Popen(
        training,
        env=environment(),
        start_new_session=True,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    while not (out / "metrics.jsonl").exists():
        assert process.poll() is None
        time.sleep(0.05)
    assert not (out / "last.pt").exists()
    os.killpg(process.pid, signal.SIGTERM)  # workers and all, as a scheduler does
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 75, errors[-2000:]
    assert (out / "last.pt").exists()


def assert_equal(a: object, b: object) -> None:
    """Equal to the bit, tensors within nested containers included."""
    if torch.is_tensor(a):
        assert torch.is_tensor(b) and torch.equal(a, b)
    elif isinstance(a, dict):
        assert isinstance(b, dict) and a.keys() == b.keys()
        for key in a:
            assert_equal(a[key], b[key])
    elif isinstance(a, list | tuple):
        assert isinstance(b, list | tuple) and len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_equal(x, y)
    else:
        assert a == b
