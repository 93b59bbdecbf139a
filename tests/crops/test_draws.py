from __future__ import annotations

import dataclasses
import math
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from crop_cases import draw_same_size, ks_distance
from PIL import Image
from timm.data.auto_augment import rand_augment_transform
from timm.data.mixup import Mixup, cutmix_bbox_and_lam
from timm.data.random_erasing import RandomErasing
from timm.data.transforms import RandomResizedCropAndInterpolation

from cskd_pipeline.crops import recipe as recipe_module
from cskd_pipeline.crops.draws import draw_positions
from cskd_pipeline.crops.mixing import LAM_ONE, Mix
from cskd_pipeline.crops.op_arguments import OPS
from cskd_pipeline.crops.philox import sample_words, stream_key
from cskd_pipeline.crops.rand_augment import MAGNITUDE_ONE, NO_OP
from cskd_pipeline.crops.recipe import RECIPES, CropRecipe

DEIT = RECIPES["deit"]
KEYED = dataclasses.replace(DEIT, key=1)
COUNT = 6000


@pytest.fixture(autouse=True)
def seeded_reference() -> Iterator[None]:
    """timm draws from global generators."""
    python, numpy = random.getstate(), np.random.get_state()
    random.seed(1)
    np.random.seed(1)
    yield
    random.setstate(python)
    np.random.set_state(numpy)


def test_a_crop_does_not_depend_on_what_else_is_asked_for_or_in_which_order() -> None:
    total = 70_001
    rng = np.random.default_rng(0)
    heights, widths = rng.integers(1, 900, total), rng.integers(1, 900, total)
    whole = DEIT.draw(4, np.arange(total), heights=heights, widths=widths, total=total)
    some = rng.permutation(total)[:20_000]
    assert np.array_equal(DEIT.draw(4, some, heights=heights[some], widths=widths[some], total=total), whole[some])
    for i in (0, 31_999, total - 1):
        alone = DEIT.draw(4, [i], heights=heights[[i]], widths=widths[[i]], total=total)
        assert np.array_equal(alone, whole[[i]])


def test_seeds_and_keys_give_other_crops_and_the_name_does_not() -> None:
    first = draw_same_size(DEIT, 0, range(50))
    assert not np.array_equal(draw_same_size(DEIT, 1, range(50))["top"], first["top"])
    other_key = draw_same_size(dataclasses.replace(DEIT, key=1), 0, range(50))
    assert not np.array_equal(other_key["top"], first["top"])
    assert np.array_equal(draw_same_size(dataclasses.replace(DEIT, name="x"), 0, range(50)), first)


def test_recipes_that_share_a_key_share_regions_and_flips() -> None:
    plain, deit = (draw_same_size(RECIPES[name], 3, range(500)) for name in ("plain", "deit"))
    for field in ("top", "left", "height", "width", "flip"):
        assert np.array_equal(plain[field], deit[field])
    assert (plain["op"] == NO_OP).all()
    assert (plain["mix"] == Mix.NONE).all()
    assert (plain["lam"] == LAM_ONE).all()
    assert not plain["erase_height"].any()
    assert np.array_equal(plain["partner"], plain["sample"])


@pytest.mark.parametrize(("height", "width"), [(375, 500), (64, 64), (500, 120)])
def test_regions_are_distributed_as_timms(height: int, width: int) -> None:
    image = Image.new("L", (width, height))
    theirs = np.array(
        [RandomResizedCropAndInterpolation.get_params(image, DEIT.scale, DEIT.ratio) for _ in range(COUNT)]
    ).T
    draws = draw_same_size(DEIT, 0, range(COUNT), height=height, width=width)
    ours = [draws[field].astype(int) for field in ("top", "left", "height", "width")]
    for mine, reference in zip(ours, theirs, strict=True):
        assert ks_distance(mine, reference) < 1
    assert ks_distance(ours[2] * ours[3], theirs[2] * theirs[3]) < 1
    assert ks_distance(ours[3] / ours[2], theirs[3] / theirs[2]) < 1


@pytest.mark.parametrize(
    ("height", "width", "region"),
    [
        (1, 1, (0, 0, 1, 1)),
        (10, 1000, (0, 493, 10, 13)),
        (1000, 10, (493, 0, 13, 10)),
        (2, 500, (0, 248, 2, 3)),
    ],
)
def test_an_image_that_no_attempt_fits_gets_timms_central_region(
    height: int, width: int, region: tuple[int, ...]
) -> None:
    whole = dataclasses.replace(DEIT, scale=(1.0, 1.0))
    draws = draw_same_size(whole, 0, range(50), height=height, width=width)
    params = RandomResizedCropAndInterpolation.get_params(Image.new("L", (width, height)), (1, 1), DEIT.ratio)
    assert params == region
    assert {tuple(int(draw[f]) for f in ("top", "left", "height", "width")) for draw in draws} == {region}


def test_every_region_is_inside_its_image_and_not_empty() -> None:
    rng = np.random.default_rng(2)
    heights, widths = (np.concatenate([rng.integers(1, 6, 2000), rng.integers(1, 3000, 2000)]) for _ in range(2))
    draws = DEIT.draw(0, np.arange(4000), heights=heights, widths=rng.permutation(widths), total=4000)
    draws_b = DEIT.draw(0, np.arange(4000), heights=heights, widths=widths, total=4000)
    assert (draws["height"] >= 1).all()
    for edge, side, limit in (("top", "height", heights), ("left", "width", widths)):
        assert (draws_b[edge] >= 0).all()
        assert (draws_b[side] >= 1).all()
        assert (draws_b[edge] + draws_b[side] <= limit).all()


def recorded_timm_ops(text: str, count: int) -> list[list[tuple[str, tuple[Any, ...]]]]:
    """The operations and arguments that timm applies, without applying them."""
    policy = rand_augment_transform(text, {"img_mean": (124, 116, 104), "interpolation": Image.Resampling.BICUBIC})
    log: list[tuple[str, tuple[Any, ...]]] = []
    for op in policy.ops:
        op.aug_fn = lambda image, *args, _name=op.name, **_: log.append((_name, args)) or image
    out = []
    for _ in range(count):
        log.clear()
        policy(Image.new("RGB", (2, 2)))
        out.append(list(log))
    return out


@pytest.mark.parametrize("text", ["rand-m9-mstd0.5-inc1", "rand-m6-n3-mstd2-inc1"])
def test_rand_augment_is_distributed_as_timms(text: str) -> None:
    theirs = recorded_timm_ops(text, COUNT)
    draws = draw_same_size(dataclasses.replace(DEIT, rand_augment=text), 0, range(COUNT))
    applied = draws["op"] != NO_OP
    # How many layers act, and which operation each of them is: chi-square at the 0.1 % level.
    counts = np.bincount(applied.sum(1), minlength=5)
    assert ks_distance(applied.sum(1), [len(ops) for ops in theirs]) < 1
    assert counts[3 if "n3" in text else 2] > 0
    frequency = np.bincount(draws["op"][applied], minlength=15)
    assert ((frequency - frequency.mean()) ** 2 / frequency.mean()).sum() < 36.1
    names = list(OPS)
    assert {name for ops in theirs for name, _ in ops} == set(names)

    signed = {"Rotate": 30, "ShearX": 0.3, "ShearY": 0.3, "TranslateXRel": 0.45, "TranslateYRel": 0.45}
    for name, full in signed.items():
        reference = [args[0] / full for ops in theirs for op, args in ops if op == name]
        ours = draws["magnitude"][draws["op"] == names.index(name)] / (10 * MAGNITUDE_ONE)
        assert ks_distance(ours, reference) < 1, name
    for name in ("ColorIncreasing", "SharpnessIncreasing"):
        reference = [(args[0] - 1) / 0.9 for ops in theirs for op, args in ops if op == name]
        ours = draws["magnitude"][draws["op"] == names.index(name)] / (10 * MAGNITUDE_ONE)
        assert ks_distance(ours, reference) < 1, name
    # All signed operations together are enough to see a wrong spread.
    reference = [abs(args[0]) / signed[op] for ops in theirs for op, args in ops if op in signed]
    assert ks_distance(np.abs(draws["magnitude"][applied].astype(int)) / (10 * MAGNITUDE_ONE), reference) < 1
    many = draw_same_size(dataclasses.replace(DEIT, rand_augment=text), 1, range(60_000))["magnitude"]
    negative, positive = (many < 0).sum(), (many > 0).sum()
    assert abs(negative - positive) < 3.3 * math.sqrt(negative + positive)
    bits = [args[0] for ops in theirs for op, args in ops if op == "PosterizeIncreasing"]
    strength = np.abs(draws["magnitude"][draws["op"] == names.index("PosterizeIncreasing")].astype(int))
    assert ks_distance(4 - strength * 4 // (10 * MAGNITUDE_ONE), bits) < 1


def test_layers_are_independent_of_each_other() -> None:
    op = draw_same_size(dataclasses.replace(DEIT, rand_augment="rand-m9-n2-inc1"), 0, range(60_000))["op"][:, :2]
    table = np.zeros((16, 16))
    np.add.at(table, tuple(np.where(op == NO_OP, 15, op).T), 1)
    expected = table.sum(1, keepdims=True) * table.sum(0) / table.sum()
    assert ((table - expected) ** 2 / expected).sum() < 225 + 3.1 * math.sqrt(2 * 225)


class BoxRecorder:
    """Stands for an image: remembers the box that is assigned."""

    def __init__(self) -> None:
        self.box: tuple[slice, slice] | None = None

    def __setitem__(self, where: tuple[slice, slice, slice], value: object) -> None:
        self.box = where[1:]


def test_erased_boxes_are_distributed_as_timms() -> None:
    erase = RandomErasing(probability=0.25, mode="const", device="cpu")
    theirs = []
    for _ in range(4 * COUNT):
        image = BoxRecorder()
        erase._erase(image, 1, 224, 224, torch.float32)
        if image.box is not None:
            rows, columns = image.box
            theirs.append((rows.start, columns.start, rows.stop - rows.start, columns.stop - columns.start))
    reference = np.array(theirs).T
    draws = draw_same_size(DEIT, 0, range(4 * COUNT))
    erased = draws[draws["erase_height"] > 0]
    share = len(erased) / len(draws)
    assert abs(share - 0.25) < 3.3 * math.sqrt(0.25 * 0.75 / len(draws))
    ours = [erased[f"erase_{field}"].astype(int) for field in ("top", "left", "height", "width")]
    for mine, column in zip(ours, reference, strict=True):
        assert ks_distance(mine, column) < 1
    assert ks_distance(ours[2] * ours[3], reference[2] * reference[3]) < 1
    assert ks_distance(ours[2] / ours[3], reference[2] / reference[3]) < 1
    assert (ours[0] + ours[2]).max() <= 224
    assert (ours[1] + ours[3]).max() <= 224


@pytest.mark.parametrize(
    ("mixup", "cutmix", "switch", "size"),
    [(0.8, 1.0, 0.5, 224), (0.2, 0.0, 0.5, 224), (0.0, 1.0, 0.1, 9), (0.1, 0.4, 0.8, 64)],
)
def test_mixing_is_distributed_as_timms(mixup: float, cutmix: float, switch: float, size: int) -> None:
    recipe = dataclasses.replace(DEIT, mixup=mixup, cutmix=cutmix, mix_switch=switch, size=size)
    reference = Mixup(mixup_alpha=mixup, cutmix_alpha=cutmix, switch_prob=switch)
    theirs: dict[bool, list[float]] = {False: [], True: []}
    sides: list[tuple[int, int]] = []
    for _ in range(COUNT):
        lam, cut = reference._params_per_batch()
        if cut:
            (top, bottom, left, right), lam = cutmix_bbox_and_lam((1, 3, size, size), lam)
            sides.append((bottom - top, right - left))
        theirs[bool(cut)].append(float(lam))
    draws = draw_same_size(recipe, 0, range(2 * COUNT), total=2 * COUNT)
    pairs = draws[draws["sample"] < draws["partner"]]
    assert len(pairs) == COUNT
    cut_share = 0.0 if not cutmix else 1.0 if not mixup else switch
    tolerance = 3.3 * math.sqrt(cut_share * (1 - cut_share) / COUNT)
    assert abs((pairs["mix"] == Mix.CUTMIX).mean() - cut_share) <= tolerance
    for cut, kind in ((False, Mix.MIXUP), (True, Mix.CUTMIX)):
        ours = pairs[pairs["mix"] == kind]
        assert bool(len(ours)) == bool(theirs[cut])
        if len(ours):
            # Their lambda to our precision: a small alpha puts much of the mass within 1/65536 of 0 and 1.
            assert ks_distance(ours["lam"], np.rint(np.array(theirs[cut]) * LAM_ONE)) < 1
    if cutmix:
        boxes = pairs[pairs["mix"] == Mix.CUTMIX]
        heights, widths = np.array(sides).T
        assert ks_distance(boxes["cut_bottom"].astype(int) - boxes["cut_top"], heights) < 1
        assert ks_distance(boxes["cut_right"].astype(int) - boxes["cut_left"], widths) < 1


def test_flips_come_at_their_probability() -> None:
    for probability in (0.0, 0.3, 1.0):
        flips = draw_same_size(dataclasses.replace(DEIT, flip=probability), 0, range(COUNT))["flip"]
        assert abs(flips.mean() - probability) <= 3.3 * math.sqrt(probability * (1 - probability) / COUNT)


def test_a_tiny_crop_still_draws() -> None:
    recipe: CropRecipe = dataclasses.replace(DEIT, size=1)
    draws = draw_same_size(recipe, 0, range(2000))
    assert (draws["erase_top"] + draws["erase_height"] <= 1).all()
    assert (draws["cut_bottom"] <= 1).all()


def test_words_of_positions_do_not_depend_on_the_company() -> None:
    some = np.array([70_000, 3, 512, 3, 0, (1 << 32) + 1])
    whole = draw_positions(DEIT, 3, some, positions=197)
    assert whole.shape == (6, 197) and whole.dtype == np.int64
    assert (whole >= 0).all() and (whole < 1 << 32).all()
    for row, sample in enumerate(some):
        assert np.array_equal(draw_positions(DEIT, 3, some[row : row + 1], positions=197)[0], whole[row])
        for positions in (1, 4, 49):
            fewer = draw_positions(DEIT, 3, np.array([sample, 9]), positions=positions)
            assert np.array_equal(fewer[0], whole[row, :positions])
    for other in (draw_positions(DEIT, 4, some, positions=4), draw_positions(KEYED, 3, some, positions=4)):
        assert not (other == whole[:, :4]).any()


def test_words_of_positions_are_pinned() -> None:
    key = stream_key(version=1, key=0, seed=3)
    samples = np.array([0, 1, (1 << 32) + 1])
    first, second = (np.stack(sample_words(key, samples, 7, block), 1) for block in (0, 1))
    found = draw_positions(DEIT, 3, samples, positions=6)
    assert np.array_equal(found, np.concatenate([first, second[:, :2]], 1))
    assert found.tolist() == [
        [83772094, 4170114702, 546180100, 3461880099, 2364482892, 1235372778],
        [2080385806, 277448677, 3867285697, 752770026, 3646184855, 3893594770],
        [3323824717, 1825180271, 189451407, 4272775133, 3950928076, 234150509],
    ]


@pytest.mark.parametrize("kept", [1, 7, 28])
def test_every_position_is_kept_as_often_as_any_other_and_pairs_too(kept: int) -> None:
    crops, positions = 20_000, 49
    order = draw_positions(DEIT, 0, np.arange(crops), positions=positions).argsort(1)
    mask = np.zeros((crops, positions))
    np.put_along_axis(mask, order[:, :kept], 1, axis=1)
    share = kept / positions
    deviation = math.sqrt(share * (1 - share) / crops)
    assert np.abs(mask.mean(0) - share).max() < 4 * deviation
    pair = share * (kept - 1) / (positions - 1)
    together = (mask[:, :-1] * mask[:, 1:]).mean(0)
    assert np.abs(together - pair).max() <= 4.2 * math.sqrt(pair * (1 - pair) / crops)


def test_every_domain_of_random_words_is_in_the_recipes_table() -> None:
    page = (Path(__file__).parents[2] / "docs/recipe.md").read_text()
    table = re.findall(
        r"^\| (\d) ([A-Za-z]+)", page[page.index("| domain |") : page.index("## From words")], re.MULTILINE
    )
    assert [int(number) for number, _ in table] == [*range(8)]
    named = {
        int(value)
        for source in (Path(recipe_module.__file__).parent).glob("*.py")
        for value in re.findall(r"^_?DOMAIN\w* = (\d+)$", source.read_text(), re.MULTILINE)
    }
    assert named == {int(number) for number, _ in table}
