"""What `precompute` says of a teacher before it stores anything, and its exit codes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from toys import CLASSES, TEACHER, TEACHER_ARGS, write_toy

import cskd_pipeline as cskd
from cskd_pipeline.data import open_split
from cskd_pipeline.errors import MismatchError
from cskd_pipeline.loading import EvaluationSet


@pytest.fixture
def right_weights(toy: Path, teacher_weights: Path) -> Path:
    """Weights whose classifier was fitted to centre crops of all images that it will see, by least squares."""
    path = toy.parent / "right.safetensors"
    if not path.exists():
        weights = load_file(teacher_weights)
        model: Any = timm.create_model(TEACHER, num_classes=len(CLASSES), **TEACHER_ARGS).eval()
        model.load_state_dict(weights)
        half = (0.5,) * 3
        images = EvaluationSet(open_split(str(toy), "train"), 32, 0.875, half, half, torch.device("cpu"), batch=110)
        pixels_N3SS, labels_N = next(iter(images))
        with torch.inference_mode():
            features_ND = model.forward_head(model.forward_features(pixels_N3SS), pre_logits=True).double()
        inputs_NE = torch.cat([features_ND, torch.ones(len(features_ND), 1)], 1)
        wanted_NC = 10 * torch.nn.functional.one_hot(labels_N).double()
        solution_EC = torch.linalg.lstsq(inputs_NE, wanted_NC, driver="gelsd").solution.float()
        weights |= {"fc.weight": solution_EC[:-1].T.contiguous(), "fc.bias": solution_EC[-1].contiguous()}
        save_file(weights, path)
    return path


@pytest.fixture
def options(precompute: list[object]) -> Callable[..., list[object]]:
    """`precompute` with other weights."""

    def options(weights: Path, *more: object) -> list[object]:
        at = precompute.index("--teacher-weights")
        return [*precompute[: at + 1], weights, *precompute[at + 2 :], *more]

    return options


def reordered(weights: Path, target: Path, order: list[int]) -> Path:
    """The same teacher with its outputs in another order."""
    found = load_file(weights)
    save_file({k: v[order].contiguous() if k.startswith("fc.") else v for k, v in found.items()}, target)
    return target


def test_a_good_teacher_is_scored_shown_and_kept(
    command: Any, options: Any, right_weights: Path, tmp_path: Path
) -> None:
    store = tmp_path / "s.zarr"
    made = command(*options(right_weights, "--out", store))
    assert made.code == 0
    line = next(line for line in made.err.splitlines() if line.startswith("teacher right on"))
    assert line.startswith("teacher right on 100.0% of 110 centre crops (top-5 100.0%, mean confidence ")
    assert "warning" not in made.err
    check = json.loads((store / "teacher_check.json").read_text())
    assert (check["images"], check["top1"], check["warnings"]) == (110, 1.0, [])
    shown = command("inspect", store)
    assert line.removeprefix("teacher ") in shown.out
    assert json.loads(command("inspect", store, "--json").out)["teacher_check"] == check
    assert command("verify", store).code == 0


def test_more_seeds_are_added_without_another_look(
    command: Any, options: Any, right_weights: Path, tmp_path: Path
) -> None:
    command(*options(right_weights, "--out", tmp_path / "s.zarr"))
    more = command(*options(right_weights, "--out", tmp_path / "s.zarr", "--seeds", "1"))
    assert more.code == 0
    assert "centre crops" not in more.err


def test_other_settings_for_a_store_are_refused_before_the_look(
    command: Any, options: Any, right_weights: Path, tmp_path: Path
) -> None:
    command(*options(right_weights, "--out", tmp_path / "s.zarr", "--no-teacher-check"))
    other = command(
        *options(right_weights, "--out", tmp_path / "s.zarr", "--teacher-mean", "0.4", "--teacher-std", "0.2")
    )
    assert other.code == 4
    assert "centre crops" not in other.err


def test_classes_in_another_order_are_refused_and_nothing_is_stored(
    command: Any, options: Any, right_weights: Path, tmp_path: Path
) -> None:
    weights = reordered(right_weights, tmp_path / "turned.safetensors", [0, 2, 1])
    refused = command(*options(weights, "--out", tmp_path / "s.zarr"))
    assert refused.code == 4
    assert (
        "the teacher's classes are in another order than the data's: it is right on 41.8% of 55 images, and on 100.0% "
        "with its outputs reordered (output 2 for 'bar' (class 1), output 1 for 'plain' (class 2)); give "
        "--teacher-classes a file whose line N (from 0) names output N, or --no-teacher-check"
    ) in refused.error
    assert not (tmp_path / "s.zarr").exists()


def test_the_file_that_the_error_asks_for_mends_it(
    command: Any, options: Any, right_weights: Path, tmp_path: Path
) -> None:
    weights = reordered(right_weights, tmp_path / "turned.safetensors", [0, 2, 1])
    (tmp_path / "classes.txt").write_text("disc\nplain\nbar\n")
    mended = command(*options(weights, "--out", tmp_path / "s.zarr", "--teacher-classes", tmp_path / "classes.txt"))
    assert mended.code == 0
    assert "right on 100.0% of 110 centre crops" in mended.err


def test_no_teacher_check_stores_them_as_they_are(
    command: Any, options: Any, right_weights: Path, tmp_path: Path
) -> None:
    weights = reordered(right_weights, tmp_path / "turned.safetensors", [0, 2, 1])
    made = command(*options(weights, "--out", tmp_path / "s.zarr", "--no-teacher-check"))
    assert made.code == 0
    assert "centre crops" not in made.err
    assert not (tmp_path / "s.zarr" / "teacher_check.json").exists()


def test_an_untrained_teacher_is_warned_of_and_used(
    command: Any, options: Any, teacher_weights: Path, tmp_path: Path
) -> None:
    made = command(*options(teacher_weights, "--out", tmp_path / "s.zarr"))
    assert made.code == 0
    warning = next(line for line in made.err.splitlines() if "where guessing is on 33.3%" in line)
    assert warning.startswith("warning: the teacher is right on ")
    assert f"           {warning}" in command("inspect", tmp_path / "s.zarr").out.splitlines()


def test_a_better_normalisation_is_named(command: Any, options: Any, right_weights: Path, tmp_path: Path) -> None:
    made = command(
        *options(right_weights, "--out", tmp_path / "s.zarr", "--teacher-mean", "none", "--teacher-std", "0.2")
    )
    assert made.code == 0
    assert (
        "would be on 100.0% with its input normalised otherwise: --teacher-mean inception --teacher-std inception"
        in (made.err)
    )


def test_the_check_travels_with_exported_labels(
    command: Any, options: Any, right_weights: Path, tmp_path: Path
) -> None:
    command(*options(right_weights, "--out", tmp_path / "s.zarr"))
    assert command("export-labels", tmp_path / "s.zarr", tmp_path / "t.zarr", "--license", "mit").code == 0
    first, second = (tmp_path / name / "teacher_check.json" for name in ("s.zarr", "t.zarr"))
    assert first.read_bytes() == second.read_bytes()


def test_the_library_does_the_same(toy: Path, right_weights: Path, tmp_path: Path) -> None:
    write_toy(tmp_path / "odd", order=(0, 2, 1))
    common: dict[str, Any] = {
        "teacher": TEACHER,
        "teacher_args": TEACHER_ARGS,
        "teacher_weights": right_weights,
        "size": 32,
        "recipe_args": {"group": 16},
        "workers": 0,
        "device": "cpu",
    }
    with pytest.raises(MismatchError, match="classes are in another order"):
        cskd.precompute(data=tmp_path / "odd", out=tmp_path / "s.zarr", **common)
    cskd.precompute(data=tmp_path / "odd", out=tmp_path / "s.zarr", teacher_check=False, **common)
