"""`cskd.open` and its loader: what a caller can get wrong is an error of one line."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from toys import STUDENT_ARGS, write_toy

import cskd_pipeline as cskd
from cskd_pipeline.batch import Targets
from cskd_pipeline.errors import CskdError, DataError, MismatchError, UsageError
from cskd_pipeline.evaluation import evaluate
from cskd_pipeline.models.student import Student

SIZES: dict[str, Any] = {"batch_size": 16, "epochs": 2, "workers": 0}


@pytest.fixture
def labels(toy_store: Path, toy: Path) -> cskd.Labels:
    return cskd.open(toy_store, data=toy)


@pytest.fixture
def student(labels: cskd.Labels) -> Student:
    return labels.student("deit_ti", args=STUDENT_ARGS)


def refused(error: type[CskdError], act: Callable[[], Any]) -> str:
    """What is said; in one line."""
    with pytest.raises(error) as caught:
        act()
    assert type(caught.value) is error
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_other_images_are_refused(toy_store: Path, toy: Path, tmp_path: Path) -> None:
    fewer = write_toy(tmp_path / "fewer", train=100)
    assert "with samples 110" in refused(MismatchError, lambda: cskd.open(toy_store, data=fewer))


def test_the_same_images_with_classes_in_another_order_are_refused(toy_store: Path, toy: Path, tmp_path: Path) -> None:
    permuted = write_toy(tmp_path / "toy", order=(1, 0, 2))
    assert "with digest" in refused(MismatchError, lambda: cskd.open(toy_store, data=permuted))


def test_another_digest_is_refused(toy_store: Path, toy: Path, tmp_path: Path) -> None:
    store = Path(shutil.copytree(toy_store, tmp_path / "labels.zarr"))
    for file in (store / "zarr.json", *store.glob("seed-*/zarr.json")):
        file.write_text(file.read_text().replace(cskd.index(data=toy).digest, "0" * 32))
    assert "with digest 00000" in refused(MismatchError, lambda: cskd.open(store, data=toy))


def test_a_missing_store_is_named(toy: Path, tmp_path: Path) -> None:
    assert "none.zarr" in refused(DataError, lambda: cskd.open(tmp_path / "none.zarr", data=toy))


def test_an_objective_whose_targets_the_store_lacks_is_refused(
    toy_store: Path, toy: Path, tmp_path: Path, labels: cskd.Labels, student: Student
) -> None:
    cskd.export_labels(toy_store, tmp_path / "hard.zarr", targets="hard", seeds=0)
    hard = cskd.open(tmp_path / "hard.zarr", data=toy)
    soft = cskd.objective("cskd", mode="soft")
    assert "holds no soft targets" in refused(MismatchError, lambda: hard.loader(soft, student, **SIZES))


WRONG: dict[str, tuple[dict[str, Any], type[CskdError], str]] = {
    "a batch that splits pairs": ({"batch_size": 15}, UsageError, "batch size must be even"),
    "a batch larger than an epoch": ({"batch_size": 112}, UsageError, "larger than an epoch"),
    "a batch of text": ({"batch_size": "16"}, UsageError, "--batch-size must be a whole number"),
    "a batch of none": ({"batch_size": None}, UsageError, "--batch-size must be a whole number"),
    "accumulation that does not divide": ({"accumulation": 3}, UsageError, "a batch of 16 cannot be split"),
    "more repeats than seeds": ({"repeats": 3}, UsageError, "--repeats 3"),
    "no epochs": ({"epochs": 0}, UsageError, "--epochs must be at least 1"),
    "a canary above 1": ({"canary": 2.0}, UsageError, "--canary must be at most 1, found 2.0"),
    "a canary of text": ({"canary": "all"}, UsageError, "--canary must be a number"),
    "an unknown seed": ({"seeds": 7}, DataError, "seed 7"),
    "a seed below 0": ({"seeds": [-1]}, UsageError, "--seeds must name seeds from 0 on"),
    "an unknown shuffle": ({"shuffle": "none"}, UsageError, "--shuffle is 'none'"),
    "an unknown place to augment": ({"augment": "gpu"}, UsageError, "--augment is 'gpu'"),
    "workers below 0": ({"workers": -1}, UsageError, "--workers must be at least 0"),
    "a device that there is not": ({"device": "tpu"}, UsageError, "device 'tpu'"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_numbers_are_refused(name: str, labels: cskd.Labels, student: Student) -> None:
    given, error, message = WRONG[name]
    objective = cskd.objective("cskd")
    assert message in refused(error, lambda: labels.loader(objective, student, **{**SIZES, **given}))


def test_what_is_no_objective_is_refused(labels: cskd.Labels, student: Student) -> None:
    for wrong in ("cskd", type(cskd.objective("cskd"))):
        assert "cskd.objective(NAME)" in refused(UsageError, lambda w=wrong: labels.loader(w, student, **SIZES))
        assert "cskd.objective(NAME)" in refused(UsageError, lambda w=wrong: labels.student("deit_ti", w))
    assert "has no needs" in refused(UsageError, lambda: labels.loader(nn.CrossEntropyLoss(), student, **SIZES))


def test_a_student_is_refused_where_it_cannot_be_fed(labels: cskd.Labels, student: Student) -> None:
    objective = cskd.objective("cskd")
    said = refused(UsageError, lambda: labels.loader(objective, nn.Linear(2, 2), **SIZES))
    assert "give it a pretrained_cfg with mean and std" in said
    assert "'meta' is not supported" in refused(
        UsageError, lambda: labels.loader(objective, student.to("meta"), **SIZES)
    )


def test_epochs_are_those_of_the_run(labels: cskd.Labels, student: Student) -> None:
    with labels.loader(cskd.objective("cskd"), student, seeds=np.array([1]), **SIZES) as loader:
        assert len(loader) == 6
        for epoch in (2, -1):
            assert f"epoch {epoch} is none of the run's 2" in refused(UsageError, lambda e=epoch: loader.set_epoch(e))
        assert "must be a whole number" in refused(UsageError, lambda: loader.set_epoch("1"))
        batches = iter(loader)  # an iterator shows the epoch that is chosen when it begins
        loader.set_epoch(np.int64(1))
        assert loader.ratio == 0.5
        assert next(batches).targets.ratio_steps == 1 << 15
        loader.set_epoch(0)  # and an iterator that is left behind disturbs no other
        assert [batch.targets.ratio_steps for batch in loader] == [1 << 16] * 6


def test_objectives_say_what_they_miss(labels: cskd.Labels, student: Student) -> None:
    hard, soft = cskd.objective("cskd"), cskd.objective("cskd", mode="soft")
    with labels.loader(hard, student, **SIZES) as loader:
        pixels, y, targets = next(iter(loader))
    output = student(pixels)
    assert hard(output, y, targets).shape == (16,)
    assert "found None" in refused(UsageError, lambda: hard(output, y, None))
    assert "made for this objective" in refused(MismatchError, lambda: soft(output, y, targets))
    assert "made for this objective" in refused(MismatchError, lambda: hard(output, y, Targets(ratio_steps=0)))
    only_global = targets._replace(hard_dense_BHW=None)
    assert "no dense classes" in refused(MismatchError, lambda: hard(output, y, only_global))
    for head in ("dist_BC", "dense_BCHW"):
        lacking = output._replace(**{head: None})
        assert head in refused(UsageError, lambda o=lacking: hard(o, y, targets))
    for objective in (hard, cskd.objective("supervised"), cskd.objective("deit")):
        assert "found Tensor" in refused(UsageError, lambda o=objective: o(output.cls_BC, y, targets))


def test_a_student_is_scored_in_its_own_loop(labels: cskd.Labels, student: Student, toy: Path) -> None:
    images = labels.evaluation(student, batch_size=10, workers=0)
    pixels, y = next(iter(images))
    assert (len(images), pixels.shape, y.dtype) == (3, (10, 3, 32, 32), torch.int64)
    scores = evaluate({"student": student}, images)["student"]
    assert {head: score.count for head, score in scores.items()} == dict.fromkeys(("cls", "two_head", "three_head"), 24)
    assert scores == evaluate({"student": student}, images)["student"]
    assert "no split 'val'" in refused(UsageError, lambda: labels.evaluation(student, split="val"))
    for wrong in ({"batch_size": 0}, {"batch_size": 2.5}, {"crop_pct": 0}, {"crop_pct": 1.5}):
        refused(UsageError, lambda w=wrong: labels.evaluation(student, **w))


@dataclasses.dataclass
class Mine:
    """An objective of one's own, which inherits nothing."""

    needs = frozenset({"hard"})
    dense = False

    def ratio_steps(self, epoch: int, epochs: int) -> int:
        return 0


def test_any_object_that_says_what_it_needs_is_an_objective(labels: cskd.Labels) -> None:
    objective: Any = Mine()
    student = labels.student("deit_ti", objective, args=STUDENT_ARGS)
    with labels.loader(objective, student, **SIZES) as loader:
        pixels, _, targets = next(iter(loader))
    assert student(pixels).dense_BCHW is None
    assert targets.hard_global_B.shape == (16,)
