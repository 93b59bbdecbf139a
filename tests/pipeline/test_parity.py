"""A student trained from the store ends in the very weights that a live teacher gives, bit for bit on the CPU."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from cskd_pipeline_cli.main import main
from safetensors.torch import load_file

STUDENT = ["--student", "deit_ti"]
for pair in ("img_size=32", "patch_size=4", "embed_dim=24", "depth=2", "num_heads=2"):
    STUDENT += ["--student-arg", pair]
LOGIT_OBJECTIVES = ["kd", "nkd", "wttm", "dist", "dkd"]
SCHEDULE = ["--epochs", "2", "--warmup-epochs", "1", "--ema-decay", "0.9", "--lr", "3e-3", "--eval-split", "none"]


def run(*arguments: object) -> None:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output


def weights(run_folder: Path) -> dict[str, torch.Tensor]:
    return {
        f"{name}/{key}": value
        for name in ("last", "ema")
        for key, value in load_file(run_folder / f"{name}.safetensors").items()
    }


def same(first: Path, second: Path) -> bool:
    a, b = weights(first), weights(second)
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.fixture(scope="module")
def teacher(teacher_weights: Path) -> list[str]:
    options = [
        "--teacher",
        "test_resnet",
        "--teacher-weights",
        str(teacher_weights),
        "--teacher-arg",
        "output_stride=8",
    ]
    return [*options, "--chunk", "16", "--size", "32", "--workers", "0"]


@pytest.mark.parametrize(
    "targets, objective",
    [
        (["hard"], ["cskd"]),
        (["hard"], ["deit"]),
        (["full", "--target-arg", "full.dtype=float32"], ["cskd", "--objective-arg", "mode=soft"]),
        (["full", "--target-arg", "full.dtype=float32"], ["cskd", "--objective-arg", "schedule=cos"]),
        (["full", "--target-arg", "full.dtype=float32"], ["deit", "--objective-arg", "mode=soft"]),
        *((["full", "--target-arg", "full.dtype=float32"], [name]) for name in LOGIT_OBJECTIVES),
    ],
    ids=["hard-cskd", "hard-deit", "full-cskd-soft", "full-cskd-hard", "full-deit-soft", *LOGIT_OBJECTIVES],
)
def test_stored_labels_train_the_same_weights_as_the_live_teacher(
    toy: Path, tmp_path: Path, teacher: list[str], targets: list[str], objective: list[str]
) -> None:
    store = tmp_path / "labels.zarr"
    run("precompute", "--data", toy, *teacher, "--seeds", "0:3", "--targets", *targets, "--out", store)
    common = ["--data", toy, *STUDENT, *SCHEDULE, "--objective", *objective, "--repeats", "2", "--batch-size", "20"]
    stored = ["--labels", store, "--canary", "1", "--workers", "0"]
    run("train", *common, *stored, "--augment", "device", "--out", tmp_path / "stored")
    run("train", *common, *teacher, "--seeds", "0:3", "--out", tmp_path / "live")
    assert same(tmp_path / "stored", tmp_path / "live")


def test_other_crops_train_other_weights(toy: Path, tmp_path: Path, teacher: list[str]) -> None:
    """The comparison above can fail."""
    for seed in ("0", "1"):
        run(
            "train",
            "--data",
            toy,
            *STUDENT,
            *SCHEDULE,
            *teacher,
            "--seeds",
            seed,
            "--batch-size",
            "20",
            "--out",
            tmp_path / seed,
        )
    assert not same(tmp_path / "0", tmp_path / "1")


def test_workers_do_not_change_the_student(toy: Path, tmp_path: Path) -> None:
    common = ["--data", toy, *STUDENT, *SCHEDULE, "--size", "32", "--batch-size", "22"]
    run("train", *common, "--workers", "0", "--out", tmp_path / "none")
    run("train", *common, "--workers", "2", "--out", tmp_path / "two")
    assert same(tmp_path / "none", tmp_path / "two")
