from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from crop_cases import draw_same_size, ks_distance, synthetic_image
from numpy.typing import NDArray

from cskd_pipeline.crops import finish as finish_module
from cskd_pipeline.crops.draws import Draws
from cskd_pipeline.crops.finish import finish
from cskd_pipeline.crops.labels import partner_rows
from cskd_pipeline.crops.philox import philox4x32
from cskd_pipeline.crops.quantiles import normal_table
from cskd_pipeline.crops.recipe import RECIPES, CropRecipe

DEIT = dataclasses.replace(RECIPES["deit"], size=40, erase=0.6, group=32)
MEAN, STD = (0.5, 0.48, 0.3), (0.26, 0.3, 0.2)


@pytest.fixture(autouse=True, params=["compiled", "torch"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "torch":
        by_torch = finish_module._by_torch
        monkeypatch.setattr(finish_module, "_compiled", lambda *values, out: out.copy_(by_torch(*values)))


def batch(recipe: CropRecipe = DEIT, *, count: int = 32, seed: int = 0) -> tuple[NDArray[np.uint8], Draws]:
    draws = draw_same_size(recipe, seed, range(count), total=count)
    crops = np.stack([synthetic_image(recipe.size, recipe.size, which=i).transpose(2, 0, 1) for i in range(count)])
    return crops, draws


def plain_finish(crops: NDArray[np.uint8], draws: Draws, rows: NDArray[np.int64], recipe: CropRecipe) -> object:
    """Crop by crop and value by value, NumPy fp32."""
    f = np.float32
    erased = crops.astype(f)
    for crop, draw in zip(erased, draws, strict=True):
        top, left, height, width = (int(draw[f"erase_{e}"]) for e in ("top", "left", "height", "width"))
        noise, index = int(draw["noise"]), 0
        for channel in range(3):
            for y in range(top, top + height):
                for x in range(left, left + width):
                    counter = (noise & 0xFFFFFFFF, noise >> 32, 6 << 16, index // 8)
                    word = philox4x32(tuple(np.array([c]) for c in counter), (0, 0))[index % 8 // 2][0]
                    half = word >> 16 if index % 2 else word & 0xFFFF
                    z = f(normal_table()[half >> 1]) / f(8192)
                    crop[channel, y, x] = z * f(255 * recipe.std[channel]) + f(255 * recipe.mean[channel])
                    index += 1
    out = erased.copy()
    for row, (draw, other) in enumerate(zip(draws, rows, strict=True)):
        if draw["mix"] == 1:
            lam = f(draw["lam"]) / f(65536)
            out[row] = erased[row] * lam + erased[other] * (f(1) - lam)
        if draw["mix"] == 2:
            box = np.s_[:, draw["cut_top"] : draw["cut_bottom"], draw["cut_left"] : draw["cut_right"]]
            out[row][box] = erased[other][box]
    for channel in range(3):
        out[:, channel] = (out[:, channel] - f(255 * MEAN[channel])) * f(1 / (255 * STD[channel]))
    return out


def finished(crops: NDArray[np.uint8], draws: Draws, recipe: CropRecipe) -> NDArray[np.float32]:
    return finish(torch.tensor(crops), draws, partner_rows(draws), recipe, mean=MEAN, std=STD).numpy()


def test_finishing_equals_a_plain_numpy_implementation_bit_for_bit() -> None:
    recipe = dataclasses.replace(DEIT, size=20)
    crops, draws = batch(recipe, count=13)
    assert set(draws["mix"].tolist()) == {0, 1, 2}
    assert (draws["erase_height"] > 0).sum() >= 4
    expected = plain_finish(crops, draws, partner_rows(draws), recipe)
    assert np.array_equal(finished(crops, draws, recipe), expected)


def test_a_finished_crop_does_not_depend_on_the_batch_around_it() -> None:
    crops, draws = batch()
    whole = finished(crops, draws, DEIT)
    order = np.random.default_rng(0).permutation(32)
    assert np.array_equal(finished(crops[order], draws[order], DEIT), whole[order])
    pair = np.array([5, int(draws["partner"][5])])
    assert np.array_equal(finished(crops[pair], draws[pair], DEIT), whole[pair])


def test_the_crops_given_are_left_as_they_were() -> None:
    crops, draws = batch()
    given = torch.tensor(crops)
    finish(given, draws, partner_rows(draws), DEIT, mean=MEAN, std=STD)
    assert np.array_equal(given.numpy(), crops)


def test_a_plain_recipe_only_normalises() -> None:
    recipe = dataclasses.replace(RECIPES["plain"], size=24)
    crops, draws = batch(recipe)
    mean, std = (np.array(values)[:, None, None] for values in (MEAN, STD))
    assert np.allclose(finished(crops, draws, recipe), (crops / 255 - mean) / std, atol=1e-5)


def test_erasing_noise_is_standard_normal_after_normalisation_by_the_recipe() -> None:
    recipe = dataclasses.replace(DEIT, size=96, mixup=0, cutmix=0, erase=1.0)
    crops, draws = batch(recipe)
    out = finish(torch.tensor(crops), draws, partner_rows(draws), recipe, mean=recipe.mean, std=recipe.std).numpy()
    values = []
    for image, draw in zip(out, draws, strict=True):
        top, left = int(draw["erase_top"]), int(draw["erase_left"])
        box = image[:, top : top + int(draw["erase_height"]), left : left + int(draw["erase_width"])]
        values.append(box.reshape(3, -1))
    noise = np.concatenate(values, 1)
    reference = np.random.default_rng(0).standard_normal(noise.size)
    assert ks_distance(noise.ravel(), reference) < 1
    assert np.abs(np.corrcoef(noise) - np.eye(3)).max() < 0.02
    neighbours = np.corrcoef(noise[:, 1:].ravel(), noise[:, :-1].ravel())[0, 1]
    assert abs(neighbours) < 0.02
    assert np.abs(noise).max() > 3.5


def test_no_two_crops_share_their_noise() -> None:
    draws = np.concatenate([draw_same_size(DEIT, seed, range(2000)) for seed in (0, 1)])
    assert len(np.unique(draws["noise"])) == len(draws)


def test_an_empty_batch_of_kinds_is_no_special_case() -> None:
    for change in ({"mixup": 0.0}, {"cutmix": 0.0}, {"erase": 0.0}):
        recipe = dataclasses.replace(DEIT, **change)
        crops, draws = batch(recipe, count=2)
        assert finished(crops, draws, recipe).shape == (2, 3, 40, 40)
