"""Whole commands, killed without warning and run again, end in the bytes of an uninterrupted run."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import torch
from commands import TORCHRUN, commits, content, kill_when, precompute, run, start
from warm import wait_until

STUDENT = ["--student", "deit_ti"]
for pair in ("img_size=32", "patch_size=8", "embed_dim=24", "depth=2", "num_heads=2"):
    STUDENT += ["--student-arg", pair]


@pytest.fixture
def labels(toy: Path, teacher_weights: Path, session_cache: Path) -> Path:
    """A store of two seeds that nobody changes."""
    store = session_cache / "two-seeds.zarr"
    if not store.exists():
        run(precompute(toy, teacher_weights, store, "--seeds", "0:2"))
    return store


@pytest.mark.slow
def test_precompute_killed_twice_gives_the_same_store(toy: Path, teacher_weights: Path, tmp_path: Path) -> None:
    run(precompute(toy, teacher_weights, tmp_path / "whole.zarr"))
    store = tmp_path / "killed.zarr"
    for blocks in (3, 31):
        command = precompute(toy, teacher_weights, store)
        kill_when(start(command), lambda blocks=blocks: commits(store) >= blocks)
    run(precompute(toy, teacher_weights, store))
    assert content(store) == content(tmp_path / "whole.zarr")
    run(["verify", str(store)])


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_training_killed_and_resumed_gives_the_same_weights(
    toy: Path, labels: Path, tmp_path: Path, processes: int
) -> None:
    launch = TORCHRUN if processes > 1 else ()
    training = ["train", "--data", str(toy), "--labels", str(labels), *STUDENT, "--epochs", "8", "--batch-size", "12"]
    training += ["--warmup-epochs", "1", "--ema-decay", "0.9", "--workers", "1", "--device", "cpu"]

    run([*training, "--out", str(tmp_path / "whole")], ranks=processes)
    killed = tmp_path / "killed"
    kill_when(start([*training, "--out", str(killed)], launch=launch), lambda: (killed / "last.pt").exists())
    assert len((killed / "metrics.jsonl").read_text().splitlines()) < 8
    run([*training, "--out", str(killed), "--resume"], ranks=processes)

    states = [torch.load(folder / "last.pt", weights_only=True) for folder in (tmp_path / "whole", killed)]
    for state in states:
        for name in ("seconds", "waited_s"):
            state["progress"].pop(name, None)
    assert_equal(*states)


@pytest.mark.slow
def test_a_preempted_process_group_leaves_a_checkpoint(toy: Path, labels: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    training = ["train", "--data", str(toy), "--labels", str(labels), *STUDENT, "--epochs", "400"]
    training += ["--batch-size", "12", "--workers", "1", "--device", "cpu", "--checkpoint-every", "400"]
    started = start([*training, "--eval-split", "none", "--out", str(out)])
    wait_until(started, (out / "metrics.jsonl").exists)
    assert not (out / "last.pt").exists()
    started.signal(signal.SIGTERM)  # workers and all, as a scheduler does
    assert started.finish() == 75, started.err.read_text()[-2000:]
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
