"""Requests check themselves, and say in one line which option is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cskd_pipeline as cskd
from cskd_pipeline.errors import UsageError
from cskd_pipeline.settings import Settings, kinds

LABELS: dict[str, Any] = {"labels": "labels.zarr"}
OUT: dict[str, Any] = {"out": "labels.zarr"}

WRONG: dict[str, tuple[type[Settings], dict[str, Any], str]] = {
    "text for a number": (cskd.TrainRequest, {**LABELS, "epochs": "3"}, "--epochs must be a whole number, found '3'"),
    "a fraction": (cskd.TrainRequest, {**LABELS, "epochs": 3.5}, "--epochs must be a whole number, found 3.5"),
    "true for a number": (cskd.TrainRequest, {**LABELS, "epochs": True}, "--epochs must be a whole number, found True"),
    "none": (cskd.TrainRequest, {**LABELS, "batch_size": None}, "--batch-size must be given, found None"),
    "too small": (cskd.TrainRequest, {**LABELS, "epochs": 0}, "--epochs must be at least 1, found 0"),
    "too large": (cskd.TrainRequest, {**LABELS, "canary": 2.0}, "--canary must be at most 1, found 2.0"),
    "not finite": (cskd.TrainRequest, {**LABELS, "lr": float("nan")}, "--lr must be greater than 0, found nan"),
    "no choice": (cskd.TrainRequest, {**LABELS, "precision": "fp8"}, "--precision is 'fp8'"),
    "a number for text": (cskd.TrainRequest, {**LABELS, "student": 7}, "--student must be text, found 7"),
    "a number for a path": (cskd.TrainRequest, {**LABELS, "out": 7}, "--out must be a path, found 7"),
    "text for a switch": (cskd.TrainRequest, {**LABELS, "resume": "no"}, "--resume must be true or false, found 'no'"),
    "text for a list": (cskd.TrainRequest, {**LABELS, "trackers": "wandb"}, "--log must be a list, found 'wandb'"),
    "text for arguments": (cskd.TrainRequest, {**LABELS, "student_args": "depth"}, "--student-arg must be a mapping"),
    "a seed below 0": (cskd.TrainRequest, {**LABELS, "seeds": [0, -1]}, "--seeds must name seeds from 0 on"),
    "a fraction of a seed": (cskd.PrecomputeRequest, {**OUT, "seeds": 0.5}, "--seeds must name seeds from 0 on"),
    "no seed": (cskd.PrecomputeRequest, {**OUT, "seeds": []}, "--seeds must name seeds from 0 on"),
    "malformed seeds": (cskd.PrecomputeRequest, {**OUT, "seeds": "0-3"}, "--seeds '0-3' is malformed"),
    "an unknown name": (cskd.TrainRequest, {"epoch": 3}, "train has no setting 'epoch' (did you mean 'epochs'"),
    "nothing": (cskd.PrecomputeRequest, {}, "precompute needs --out"),
    "a missing image set": (cskd.IndexRequest, {}, "index needs --data"),
    "an unknown preset": (cskd.TrainRequest, {**LABELS, "preset": "cskd-xl"}, "preset is 'cskd-xl'"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_settings_are_refused_in_one_line(name: str) -> None:
    request, settings, message = WRONG[name]
    with pytest.raises(UsageError) as caught:
        request.of(**settings)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("given", [7, np.int64(7), "7", [7], np.array([7, 7]), range(7, 8), {7}])
def test_seeds_are_given_in_any_form(given: Any) -> None:
    seeds = cskd.PrecomputeRequest(out="x", seeds=given).seeds
    assert seeds == (7,)
    assert type(seeds[0]) is int


def test_numbers_of_numpy_are_numbers() -> None:
    request = cskd.TrainRequest(labels="x", epochs=np.int64(9), lr=np.float32(0.5), canary=1)
    assert (request.epochs, request.lr, request.canary) == (9, 0.5, 1.0)
    assert [type(value) for value in (request.epochs, request.lr, request.canary)] == [int, float, float]


def test_paths_are_taken_where_text_is() -> None:
    request = cskd.TrainRequest(labels=Path("a/labels.zarr"), data=Path("images"), out="run")
    assert (request.labels, request.data, request.out) == (("a/labels.zarr",), "images", Path("run"))


def test_a_preset_comes_before_defaults_and_after_what_is_given() -> None:
    plain, preset = cskd.TrainRequest.of(**LABELS), cskd.TrainRequest.of(preset="cskd-b", **LABELS)
    assert (plain.repeats, preset.repeats) == (1, 3)
    assert (preset.student, preset.objective, preset.batch_size, preset.lr) == ("deit_b", "cskd", 256, 2.5e-4)
    own = cskd.TrainRequest.of(preset="cskd-b", lr=1e-3, student="deit_ti", **LABELS)
    assert (own.lr, own.student, own.batch_size) == (1e-3, "deit_ti", 256)


VERBS: dict[str, tuple[Any, tuple[str, ...], type[Settings]]] = {
    "precompute": (cskd.precompute, (), cskd.PrecomputeRequest),
    "train": (cskd.train, (), cskd.TrainRequest),
    "evaluate": (cskd.evaluate, ("run",), cskd.EvaluateRequest),
    "verify": (cskd.verify, ("labels.zarr",), cskd.VerifyRequest),
    "repair": (cskd.repair, ("labels.zarr",), cskd.RepairRequest),
    "export_labels": (cskd.export_labels, ("labels.zarr", "copy.zarr"), cskd.ExportLabelsRequest),
    "index": (cskd.index, (), cskd.IndexRequest),
}


@pytest.mark.parametrize("name", VERBS)
def test_a_request_is_whole_and_the_verbs_own(name: str) -> None:
    verb, words, kind = VERBS[name]
    needed = {setting.name: "x" for setting in kinds(kind).values() if setting.required}
    request = kind(**(needed or (LABELS if name == "train" else {})))
    with pytest.raises(UsageError, match="found a request and"):
        verb(*words, request, data="y")
    with pytest.raises(UsageError, match=f"takes a {kind.__name__}, or its settings by name"):
        verb(*words, {"data": "y"})
    with pytest.raises(UsageError, match="has no setting 'dta'"):
        verb(*words, dta="y")


def test_each_of_two_teachers_has_a_normalisation_of_its_own() -> None:
    teachers = {"data": "shapes", "teacher": "resnet18", "second_teacher": "rednet26"}
    first, second = cskd.TrainRequest.of(**teachers, teacher_mean="clip", teacher_std="none").teachers().values()
    assert first.normalised() == ((0.48145466, 0.4578275, 0.40821073), (1, 1, 1)) and second.normalised() is None
    halves = {"second_teacher_mean": "0.25", "second_teacher_std": "0.5"}
    first, second = cskd.TrainRequest.of(**teachers, **halves).teachers().values()
    assert first.normalised() is None and second.normalised() == ((0.25,) * 3, (0.5,) * 3)
