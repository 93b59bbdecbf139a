from __future__ import annotations

import dataclasses
import json
import multiprocessing

import numpy as np
import pytest
import torch
from crop_cases import draw_same_size, synthetic_image
from make_golden_crops import PATH, compute
from PIL import Image
from torchvision.transforms import v2

from cskd_pipeline.crops.checksum import crop_crc
from cskd_pipeline.crops.evaluation import evaluation_crop
from cskd_pipeline.crops.recipe import RECIPES
from cskd_pipeline.crops.render import render, resize

DEIT = RECIPES["deit"]
PLAIN = RECIPES["plain"]


def crop_checksums(threads: int) -> list[int]:
    torch.set_num_threads(threads)
    recipe = dataclasses.replace(DEIT, size=160)
    draws = draw_same_size(recipe, 0, range(24))
    image = synthetic_image(375, 500)
    return [crop_crc(render(image, draw, recipe)) for draw in draws]


def test_golden_draws_crops_and_batches_never_change() -> None:
    computed = json.loads(json.dumps(compute()))
    golden = json.loads(PATH.read_text())
    assert computed.keys() == golden.keys()
    for case, parts in golden.items():
        for part, expected in parts.items():
            assert computed[case][part] == expected, (case, part)


def test_crops_are_the_same_in_a_spawned_process_with_other_threads() -> None:
    before = torch.get_num_threads()
    try:
        here = crop_checksums(1)
    finally:
        torch.set_num_threads(before)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(crop_checksums, (3,)) == here
    assert len(set(here)) == len(here)


def test_a_plain_crop_is_the_region_resized_and_flipped() -> None:
    image = synthetic_image(90, 120)
    for draw in draw_same_size(PLAIN, 0, range(12), height=90, width=120):
        top, left, height, width = (int(draw[field]) for field in ("top", "left", "height", "width"))
        region = image[top : top + height, left : left + width]
        planes = torch.tensor(region.transpose(2, 0, 1).copy())[None]
        expected = torch.nn.functional.interpolate(planes, size=(224, 224), mode="bicubic", antialias=True)[0]
        expected = expected.flip(2) if draw["flip"] else expected
        crop = render(image, draw, PLAIN)
        assert np.array_equal(crop, expected.numpy())
        assert crop.flags.c_contiguous
        assert crop.dtype == np.uint8


def test_resizing_is_pillows_to_the_nearest_grey_levels() -> None:
    y, x = np.mgrid[:300, :400]
    image = np.stack([x * 255 // 399, y * 255 // 299, (x + y) * 255 // 698], 2).astype(np.uint8)
    theirs = np.asarray(Image.fromarray(image).resize((160, 224), Image.Resampling.BICUBIC))
    gap = np.abs(resize(image, height=224, width=160).astype(int) - theirs)
    assert gap.max() <= 1
    assert gap.mean() < 0.1


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 2), (2, 500), (500, 2), (3, 3), (40, 3000)])
def test_tiny_and_extreme_images_render(height: int, width: int) -> None:
    recipe = dataclasses.replace(DEIT, size=32)
    image = synthetic_image(height, width)
    for draw in draw_same_size(recipe, 0, range(40), height=height, width=width):
        assert render(image, draw, recipe).shape == (3, 32, 32)


def test_a_read_only_image_renders_without_being_changed() -> None:
    image = synthetic_image(50, 50)
    image.flags.writeable = False
    before = image.copy()
    for draw in draw_same_size(DEIT, 0, range(4), height=50, width=50):
        render(image, draw, DEIT)
    assert np.array_equal(image, before)


def test_an_image_of_another_size_than_was_drawn_for_is_refused() -> None:
    draw = draw_same_size(DEIT, 0, [0])[0]
    with pytest.raises(
        ValueError, match=r"sample 0: region of rows .* does not lie in an image of shape \(20, 20, 3\)"
    ):
        render(synthetic_image(20, 20), draw, DEIT)


@pytest.mark.parametrize(("height", "width"), [(375, 500), (500, 333), (64, 64), (97, 131)])
@pytest.mark.parametrize(("size", "crop_pct"), [(224, 0.875), (224, 0.95), (64, 1.0), (32, 0.9)])
def test_the_evaluation_crop_is_torchvisions(height: int, width: int, size: int, crop_pct: float) -> None:
    image = synthetic_image(height, width)
    steps = [v2.Resize(int(size / crop_pct), interpolation=v2.InterpolationMode.BICUBIC), v2.CenterCrop(size)]
    expected = v2.Compose(steps)(torch.tensor(image.transpose(2, 0, 1).copy()))
    crop = evaluation_crop(image, size=size, crop_pct=crop_pct)
    assert np.array_equal(crop, expected.numpy())
    assert crop.flags.c_contiguous


def test_an_evaluation_crop_larger_than_the_image_is_refused() -> None:
    with pytest.raises(ValueError, match="crop_pct must be above 0 and at most 1"):
        evaluation_crop(synthetic_image(9, 9), size=8, crop_pct=1.1)


def test_one_changed_pixel_changes_the_checksum() -> None:
    crop = synthetic_image(8, 8).transpose(2, 0, 1)
    other = crop.copy()
    other[2, 7, 7] ^= 1
    assert crop_crc(crop) != crop_crc(other)
    assert crop_crc(np.frombuffer(b"123456789", np.uint8)) == 0xE3069283
