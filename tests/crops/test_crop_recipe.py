from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from cskd_pipeline.crops.recipe import RECIPES, CropRecipe
from cskd_pipeline.errors import UsageError

REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"size": 0}, "size must be a whole number from 1"),
    ({"size": 224.0}, "found 224.0"),
    ({"key": True}, "key must be a whole number"),
    ({"group": 255}, "group must be even, found 255"),
    ({"scale": (0.0, 1.0)}, "scale must satisfy"),
    ({"scale": 0.08}, "scale must be 2 numbers, found 0.08"),
    ({"ratio": (1.5, 1.0)}, "ratio must satisfy"),
    ({"ratio": (0.01, 1.0)}, "ratio must satisfy"),
    ({"flip": 1.5}, "flip must be a probability, 0 to 1, found 1.5"),
    ({"flip": "0.5"}, "flip must be a number, found '0.5'"),
    ({"mixup": 0.3}, "mixup must be 0 (off) or one of 0.1, 0.2, 0.4, 0.8, 1.0, found 0.3"),
    ({"cutmix": -1}, "cutmix must be"),
    ({"label_smoothing": 1.0}, "label_smoothing must be"),
    ({"std": (0.0, 0.2, 0.2)}, "std must be"),
    ({"mean": (0.5, 0.5)}, "mean must be 3 numbers"),
    ({"rand_augment": "rand-m9-mstd0.5"}, "is not supported"),
    ({"rand_augment": "augmix-m3"}, "is not supported"),
    ({"rand_augment": "rand-m11-inc1"}, "at most 10"),
    ({"rand_augment": "rand-m9-n5-inc1"}, "n must be 1 to 4"),
    ({"version": 2}, "version 2 is a newer format than this release knows (1)"),
]


@pytest.mark.parametrize(("change", "message"), REFUSED)
def test_a_wrong_field_is_refused_with_the_value_found(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        dataclasses.replace(RECIPES["deit"], **change)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_round_trips_through_json(name: str) -> None:
    recipe = RECIPES[name]
    assert recipe.name == name
    read = CropRecipe.from_json(json.loads(json.dumps(recipe.to_json())))
    assert read == recipe
    assert read.digest() == recipe.digest()


def test_whole_numbers_in_json_mean_the_same_recipe_as_fractions() -> None:
    values = RECIPES["deit"].to_json() | {"cutmix": 1, "scale": [0.08, 1]}
    assert CropRecipe.from_json(values).digest() == RECIPES["deit"].digest()


def test_a_newer_recipe_is_refused_as_newer_even_with_unknown_fields() -> None:
    with pytest.raises(UsageError, match="newer format"):
        CropRecipe.from_json(RECIPES["deit"].to_json() | {"version": 2, "colour": "teal"})


def test_every_field_that_a_recipe_has_changes_its_digest() -> None:
    changes: dict[str, Any] = {
        "name": "x", "key": 1, "size": 96, "scale": (0.1, 1.0), "ratio": (0.5, 2.0), "flip": 0.0,
        "rand_augment": None, "erase": 0.0, "mixup": 0.2, "cutmix": 0.0, "mix_switch": 0.1, "label_smoothing": 0.0,
        "group": 64, "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5),
    }  # fmt: skip
    base = RECIPES["deit"]
    digests = {dataclasses.replace(base, **{field: value}).digest() for field, value in changes.items()}
    assert len(digests | {base.digest()}) == len(changes) + 1
    assert changes.keys() | {"version"} == {field.name for field in dataclasses.fields(CropRecipe)}


def test_drawing_refuses_samples_outside_the_data_set() -> None:
    ok = {"heights": [10], "widths": [10]}
    for samples, total in (([10], 10), ([-1], 10)):
        with pytest.raises(ValueError, match=r"samples must lie in 0\.\.9"):
            RECIPES["deit"].draw(0, samples, total=total, **ok)
    with pytest.raises(ValueError, match="seed"):
        RECIPES["deit"].draw(-1, [0], total=10, **ok)
    with pytest.raises(ValueError, match="lengths differ"):
        RECIPES["deit"].draw(0, [0, 1], total=10, **ok)
    with pytest.raises(ValueError, match="at least 1, found 0"):
        RECIPES["deit"].draw(0, [0], total=10, heights=[0], widths=[3])


def test_no_samples_give_no_crops() -> None:
    assert len(RECIPES["deit"].draw(0, np.array([], np.int64), heights=[], widths=[], total=0)) == 0


def test_drawing_needs_no_torch() -> None:
    code = (
        "import sys; from cskd_pipeline.crops.recipe import RECIPES\n"
        "RECIPES['deit'].draw(0, [0, 1], heights=[9, 9], widths=[9, 9], total=2)\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
