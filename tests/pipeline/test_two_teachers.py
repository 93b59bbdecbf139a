"""Two live teachers are two stores without the stores: the same weights, bit for bit on the CPU, resumed or not."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from toys import TEACHER

import cskd_pipeline as cskd
from cskd_pipeline.errors import DataError, MismatchError, StoppedError, UsageError
from cskd_pipeline.models.rednet import rednet26
from cskd_pipeline.progress import Progress

MACHINE: dict[str, Any] = {"workers": 0, "device": "cpu"}
TRAINING: dict[str, Any] = {
    **MACHINE,
    "student": "civt_ti",
    "student_args": {"embed_dim": 16, "depth": 1, "num_heads": 2, "patch_size": 8},
    "objective": "civt",
    "epochs": 1,
    "warmup_epochs": 0,
    "batch_size": 20,
    "lr": 3e-3,
    "eval_split": "none",
}


@pytest.fixture(scope="session")
def involution_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("teacher") / "rednet26.safetensors"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        save_file(rednet26(num_classes=3).state_dict(), path)
    return path


@pytest.fixture
def live(toy: Path, teacher_weights: Path, involution_weights: Path) -> dict[str, Any]:
    first = {"teacher": TEACHER, "teacher_weights": teacher_weights}
    second = {"second_teacher": "rednet26", "second_teacher_weights": involution_weights}
    return {"data": toy, **first, **second, "chunk": 16, "size": 32, "seeds": "0"}


def same(first: Path, second: Path) -> bool:
    a, b = (load_file(folder / "last.safetensors") for folder in (first, second))
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def test_a_live_pair_trains_the_weights_of_two_stores_and_resumes_to_them(live: dict[str, Any], tmp_path: Path) -> None:
    teachers = {
        "conv": {"teacher": live["teacher"], "teacher_weights": live["teacher_weights"]},
        "inv": {"teacher": live["second_teacher"], "teacher_weights": live["second_teacher_weights"]},
    }
    crops = {name: live[name] for name in ("data", "chunk", "size", "seeds")}
    full = {"targets": "full", "target_args": {"full.dtype": "float32"}}
    for name, teacher in teachers.items():
        cskd.precompute(**crops, **teacher, **full, **MACHINE, out=tmp_path / name)
    cskd.train(**TRAINING, data=live["data"], labels=[tmp_path / "conv", tmp_path / "inv"], out=tmp_path / "stored")
    cskd.train(**TRAINING, data=live["data"], labels=[tmp_path / "inv", tmp_path / "conv"], out=tmp_path / "swapped")

    def stop(event: Progress | str) -> None:
        if isinstance(event, Progress) and event.task.startswith("epoch"):
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(StoppedError, match="--resume"):
        cskd.train(**TRAINING, **live, out=tmp_path / "live", progress=stop)
    other = {**live, "second_teacher": TEACHER, "second_teacher_weights": live["teacher_weights"]}
    with pytest.raises(MismatchError, match=r"extra.second_teacher.model is 'rednet26' there and 'test_resnet' here"):
        cskd.train(**TRAINING, **other, out=tmp_path / "live", resume=True)
    cskd.train(**TRAINING, **live, out=tmp_path / "live", resume=True)
    assert same(tmp_path / "stored", tmp_path / "live")
    assert not same(tmp_path / "stored", tmp_path / "swapped")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"teacher": None}, "--second-teacher is given without --teacher; name the first teacher too"),
        ({"labels": "a.zarr"}, "--labels and --teacher exclude each other"),
        ({"labels": "a.zarr", "teacher": None}, "--labels and --second-teacher exclude each other"),
        ({"objective": "kd"}, "kd does not learn from two teachers; leave out --second-teacher, or .*civt"),
        ({"second_teacher": None}, "--second-teacher-weights is given without --second-teacher"),
        (
            {"second_teacher": None, "second_teacher_weights": None},
            "civt learns from two teachers, and --teacher is one; give --second-teacher too, or --labels A --labels B",
        ),
        ({"second_teacher": "rednet27"}, "no model 'rednet27' .did you mean 'rednet26'"),
        ({"second_teacher_args": {"nonsense": 1}}, "timm cannot build rednet26 with nonsense=1"),
        ({"second_teacher_args": {"num_classes": 7}}, "--second-teacher-arg num_classes is settled"),
        ({"second_teacher": "resnet18", "second_teacher_weights": None}, "give --second-teacher-weights"),
    ],
)
def test_half_a_pair_and_a_pair_too_many_are_refused_in_one_line(
    changed: dict[str, Any], message: str, live: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises((UsageError, MismatchError), match=message) as caught:
        cskd.train(**{**TRAINING, **live, **changed}, out=tmp_path / "run")
    assert "\n" not in str(caught.value) and not (tmp_path / "run").exists()


def test_the_second_teachers_file_is_named_where_it_is_missing(live: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"--second-teacher-weights .*nowhere.pth does not exist"):
        cskd.train(**TRAINING, **{**live, "second_teacher_weights": "nowhere.pth"}, out=tmp_path / "run")
