"""Each example computes, step by step, the losses that `cskd.train` computes."""

from __future__ import annotations

import importlib.util
import json
import os
import runpy
import statistics
import subprocess
import sys
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch.utils._pytree import tree_leaves
from toys import STUDENT_ARGS

import cskd_pipeline as cskd
from cskd_pipeline.batch import TrainBatch

EXAMPLES = Path(__file__).parents[2] / "examples"
EPOCHS, BATCH, UPDATES = 2, 16, 6
SHARED: dict[str, Any] = {
    "student": "deit_ti",
    "student_args": STUDENT_ARGS,
    "epochs": EPOCHS,
    "batch_size": BATCH,
    "lr": 2e-3,
    "workers": 0,
}


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of imported packages
        spec.loader.exec_module(module)
    return module


def trained(store: Path, toy: Path, out: Path, *, scheduler: str, decay: float) -> list[dict[str, float]]:
    """The metrics of the epochs of `cskd.train` with the settings of the examples."""
    settings = {"warmup_epochs": 0, "drop_path": 0.0, "scheduler": scheduler, "device": "cpu", "weight_decay": decay}
    cskd.train(labels=store, data=toy, out=out, **settings, **SHARED)
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def same_losses(losses: list[float], rows: list[dict[str, float]]) -> bool:
    assert len(losses) == EPOCHS * UPDATES
    epochs = [statistics.fmean(losses[start : start + UPDATES]) for start in range(0, len(losses), UPDATES)]
    return epochs == pytest.approx([row["train/loss"] for row in rows], abs=1e-6)


def test_plain_pytorch(toy_store: Path, toy: Path, tmp_path: Path) -> None:
    losses, scores = example("plain_pytorch").main(toy_store, data=toy, decay=0.0, **SHARED)
    rows = trained(toy_store, toy, tmp_path / "run", scheduler="constant", decay=0.0)
    assert same_losses(losses, rows)
    assert scores["three_head"].loss == pytest.approx(rows[-1]["model/three_head/loss"], abs=1e-6)


def test_timm(toy_store: Path, toy: Path, tmp_path: Path) -> None:
    losses, scores = example("with_timm").main(toy_store, data=toy, **SHARED)
    rows = trained(toy_store, toy, tmp_path / "run", scheduler="cosine", decay=0.05)
    assert same_losses(losses, rows)
    for name, weights in {"student": "model", "ema": "ema"}.items():
        assert scores[name]["three_head"].loss == pytest.approx(rows[-1][f"{weights}/three_head/loss"], abs=1e-6)


def test_lightning(toy_store: Path, toy: Path, tmp_path: Path) -> None:
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lightning's
        losses, logged = example("with_lightning").main(
            toy_store, data=toy, decay=0.0, trainer={**quiet, "enable_model_summary": False}, **SHARED
        )
    rows = trained(toy_store, toy, tmp_path / "run", scheduler="constant", decay=0.0)
    assert same_losses(losses, rows)
    assert 100 * float(logged["top1"]) == pytest.approx(rows[-1]["model/three_head/top1"], abs=1e-4)


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_examples_are_short_and_have_a_command_line(
    path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert len(path.read_text().splitlines()) < 60
    monkeypatch.setattr(sys, "argv", [str(path), "--help"])
    with warnings.catch_warnings(), pytest.raises(SystemExit, match="0"):
        warnings.simplefilter("ignore")
        runpy.run_path(str(path), run_name="__main__")
    shown = capsys.readouterr().out
    assert all(f"--{name}" in shown for name in ("data", "student", "epochs", "batch-size", "lr"))


@pytest.fixture(params=["hard", "soft", None])
def batch(request: pytest.FixtureRequest, toy_store: Path, toy: Path) -> TrainBatch:
    """One with hard, with sparse, or without targets; the other fields are None."""
    labels = cskd.open(toy_store, data=toy)
    objective = cskd.objective("supervised") if request.param is None else cskd.objective("cskd", mode=request.param)
    student = labels.student("deit_ti", objective, args=STUDENT_ARGS)
    with labels.loader(objective, student, batch_size=16, epochs=1, workers=0) as loader:
        return next(iter(loader))


def devices(batch: TrainBatch) -> set[str]:
    return {leaf.device.type for leaf in tree_leaves(batch) if isinstance(leaf, torch.Tensor)}


def test_lightning_moves_a_batch(batch: TrainBatch) -> None:
    from lightning.fabric.utilities.apply_func import move_data_to_device

    moved = move_data_to_device(batch, torch.device("meta"))
    assert type(moved) is TrainBatch
    assert type(moved.targets) is type(batch.targets)
    assert devices(moved) == {"meta"}
    assert len(tree_leaves(moved)) == len(tree_leaves(batch))


def test_torch_pins_a_batch(batch: TrainBatch, monkeypatch: pytest.MonkeyPatch) -> None:
    from torch.utils.data._utils.pin_memory import pin_memory

    pinned: list[torch.Tensor] = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor, *_: pinned.append(tensor) or tensor)
    again = pin_memory(batch)
    assert type(again) is TrainBatch
    assert len(pinned) == sum(isinstance(leaf, torch.Tensor) for leaf in tree_leaves(batch)) > 3


def test_lightning_casts_what_a_student_returns(toy_store: Path, toy: Path) -> None:
    from lightning.fabric.plugins.precision import MixedPrecision

    student = cskd.open(toy_store, data=toy).student("deit_ti", args=STUDENT_ARGS)
    output = student(torch.zeros(2, 3, 32, 32))
    cast = MixedPrecision("bf16-mixed", "cpu").convert_output(output._replace(dense_BCHW=None))
    assert type(cast) is type(output)
    assert cast.dense_BCHW is None


@pytest.mark.slow
def test_plain_pytorch_on_two_processes(toy_store: Path, toy: Path, tmp_path: Path) -> None:
    """Each computes the loss of its half of every batch; together they are those of one process."""
    arguments = {**SHARED, "data": str(toy), "decay": 0.0}
    program = tmp_path / "program.py"
    program.write_text(
        f"import json, os, pathlib, sys\nsys.path.insert(0, {str(EXAMPLES)!r})\nimport plain_pytorch\n"
        f"losses, scores = plain_pytorch.main({str(toy_store)!r}, **{arguments!r})\n"
        f"found = json.dumps([losses, scores['three_head'].loss, scores['three_head'].count])\n"
        f"pathlib.Path({str(tmp_path)!r}, os.environ['RANK']).write_text(found)\n"
    )
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    ended = subprocess.run([*launcher, program], capture_output=True, text=True, env=environment)
    assert ended.returncode == 0, ended.stderr
    (first, *scores), (second, *others) = (json.loads((tmp_path / rank).read_text()) for rank in "01")
    alone, alone_scores = example("plain_pytorch").main(toy_store, **arguments)
    assert [(a + b) / 2 for a, b in zip(first, second, strict=True)] == pytest.approx(alone, abs=1e-5)
    assert scores == others
    assert scores == pytest.approx([alone_scores["three_head"].loss, 24], abs=1e-5)
