"""Models and weights of the user's own, on the command line."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from timm.models import save_for_hf
from toys import CLASSES, TEACHER

MODULE = """
import timm
from timm.models import register_model

@register_model
def {name}(pretrained=False, **kwargs):
    return timm.create_model("{base}", pretrained=False, **{{**kwargs, "pretrained_cfg": None}})
"""


@pytest.fixture
def folder(teacher_weights: Path, tmp_path: Path) -> Path:
    """The toy teacher as timm's `save_for_hf` stores it."""
    model: Any = timm.create_model(TEACHER, num_classes=len(CLASSES))
    model.load_state_dict(load_file(teacher_weights))
    save_for_hf(model, tmp_path / "mine")
    return tmp_path / "mine"


def without(words: list[object], *options: str) -> list[object]:
    """The words without these options and their values."""
    dropped = {at + step for at, word in enumerate(words) if word in options for step in (0, 1)}
    return [word for at, word in enumerate(words) if at not in dropped]


def test_a_folder_labels_and_mends_as_its_file_does(
    command: Any, precompute: list[object], finished_store: Path, folder: Path, tmp_path: Path
) -> None:
    words = without(precompute, "--teacher", "--teacher-weights")
    made = command(*words, "--teacher", f"local-dir:{folder}", "--out", tmp_path / "s.zarr")
    assert made.code == 0
    first, second = (json.loads((s / "zarr.json").read_text()) for s in (finished_store, tmp_path / "s.zarr"))
    teachers = [store["attributes"]["teacher"] for store in (first, second)]
    assert teachers[0]["weights"] == teachers[1]["weights"] and str(folder) not in json.dumps(second)
    checked = command("verify", tmp_path / "s.zarr", "--teacher-weights", folder, "--crops", "8")
    assert checked.code == 0 and " crops recomputed, differences: 0" in checked.out


def test_an_entry_is_chosen_for_the_teacher_and_for_its_store(
    command: Any, precompute: list[object], teacher_weights: Path, tmp_path: Path
) -> None:
    own = load_file(teacher_weights)
    average = {name: value * 1.5 if value.is_floating_point() else value for name, value in own.items()}
    torch.save({"state_dict": own, "state_dict_ema": average, "arch": TEACHER}, tmp_path / "last.pth.tar")
    words = [*without(precompute, "--teacher-weights"), "--teacher-weights", tmp_path / "last.pth.tar"]
    for name, options in (("ema", ()), ("own", ("--teacher-entry", "state_dict"))):
        made = command(*words, *options, "--out", tmp_path / f"{name}.zarr")
        assert made.code == 0
        assert f"took the weights in {'state_dict_ema' if name == 'ema' else 'state_dict'}, it also has" in made.err
    weights = ("--teacher-weights", tmp_path / "last.pth.tar")
    refused = command("verify", tmp_path / "own.zarr", *weights, "--crops", "8")
    assert refused.code == 4 and "--teacher-weights" in refused.error
    assert command("verify", tmp_path / "own.zarr", *weights, "--teacher-entry", "state_dict", "--crops", "8").code == 0


def test_a_model_of_an_imported_module_teaches_and_learns(
    command: Any,
    precompute: list[object],
    train: list[object],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "own_teachers.py").write_text(MODULE.format(name="own_resnet", base=TEACHER))
    (tmp_path / "students.py").write_text(MODULE.format(name="own_vit", base="deit_tiny_distilled_patch16_224"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    words = [*without(precompute, "--teacher"), "--teacher", "own_resnet", "--out", tmp_path / "s.zarr"]
    unknown = command(*words)
    assert unknown.code == 2
    assert "has no model 'own_resnet'" in unknown.error and "--import" in unknown.error
    assert command(*words, "--import", "own_teachers").code == 0
    learning = [*without(train, "--student"), "--student", "own_vit", "--labels", tmp_path / "s.zarr"]
    imported = ("--import", tmp_path / "students.py")
    assert command(*learning, *imported, "--out", tmp_path / "run").code == 0
    assert command("eval", tmp_path / "run", *imported, "--workers", "0", "--device", "cpu").code == 0


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("absent_module", None, "No module named 'absent_module'"),
        ("absent.py", None, "No such file"),
        ("wrong.py", "1 / 0", "ZeroDivisionError: division by zero"),
    ],
)
def test_modules_that_cannot_be_imported_are_named(
    name: str, content: str | None, said: str, command: Any, precompute: list[object], tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    given = str(tmp_path / name) if name.endswith(".py") else name
    refused = command(*precompute, "--out", tmp_path / "s.zarr", "--import", given)
    assert refused.code == 2
    assert f"--import {given} fails" in refused.error and said in refused.error


def test_verbose_lists_all_that_does_not_fit(command: Any, precompute: list[object], tmp_path: Path) -> None:
    save_file({"a": torch.ones(1)}, tmp_path / "w.safetensors")
    words = [*without(precompute, "--teacher-weights"), "--teacher-weights", tmp_path / "w.safetensors"]
    count = len(timm.create_model(TEACHER).state_dict()) + 1
    short = command(*words, "--out", tmp_path / "s.zarr")
    assert short.code == 3
    assert short.error.endswith(f"unknown a (--verbose lists all {count})") and "\n  " not in short.err
    long = command(*words, "--out", tmp_path / "s.zarr", "--verbose")
    assert "--verbose" not in long.error
    listed = [line for line in long.err.splitlines() if line.startswith(("  missing ", "  unknown "))]
    assert len(listed) == count and "  unknown a" in listed
