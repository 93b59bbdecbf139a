from __future__ import annotations

import random
from unittest import mock

import numpy as np
import pytest
from crop_cases import draw_same_size, synthetic_image
from PIL import Image
from timm.data import auto_augment

from cskd_pipeline.crops import op_kernels
from cskd_pipeline.crops.ops import OPS, apply_op
from cskd_pipeline.crops.recipe import RECIPES
from cskd_pipeline.crops.render import render

FILL = RECIPES["deit"].fill
MAGNITUDES = [0.0, 3 / 2048, 2.5, 7.0, 8.99951171875, 9.0, 9.75, 10.0]
IMAGES = [synthetic_image(h, w, which=h) for h, w in ((224, 224), (64, 64), (7, 7), (1, 1))]
IMAGES.append(np.full((32, 32, 3), 77, np.uint8))
IMAGES.append((synthetic_image(64, 64) // 5 + 90).astype(np.uint8))


def timm_op(image: Image.Image, name: str, *, magnitude: float, negative: bool) -> Image.Image:
    op = auto_augment.AugmentOp(
        name, prob=1.0, magnitude=magnitude, hparams={"img_mean": FILL, "interpolation": Image.Resampling.BICUBIC}
    )
    with mock.patch.object(random, "random", return_value=1.0 if negative else 0.0):
        return op(image)


@pytest.mark.parametrize("name", OPS)
def test_an_operation_equals_timms_bit_for_bit(name: str) -> None:
    for pixels in IMAGES:
        for magnitude in MAGNITUDES:
            if name == "PosterizeIncreasing" and magnitude == 10:
                continue  # 0 bits: timm raises there since Pillow 13
            for negative in (False, True):
                image = Image.fromarray(pixels)
                ours = apply_op(image, list(OPS).index(name), magnitude=magnitude, negative=negative, fill=FILL)
                theirs = timm_op(image, name, magnitude=magnitude, negative=negative)
                assert np.array_equal(np.asarray(ours), np.asarray(theirs)), (pixels.shape, magnitude, negative)
                assert np.array_equal(np.asarray(image), pixels)


def test_posterizing_to_no_bits_is_black() -> None:
    number = list(OPS).index("PosterizeIncreasing")
    out = apply_op(Image.fromarray(IMAGES[1]), number, magnitude=10.0, negative=False, fill=FILL)
    assert out.size == (64, 64)
    assert not np.asarray(out).any()


def test_the_order_of_operations_is_timms() -> None:
    assert list(OPS) == auto_augment._RAND_INCREASING_TRANSFORMS


def test_uncovered_pixels_take_the_mean_colour() -> None:
    assert FILL == (124, 116, 104)
    number = list(OPS).index("TranslateXRel")
    out = np.asarray(apply_op(Image.fromarray(IMAGES[1]), number, magnitude=10.0, negative=False, fill=FILL))
    assert (out[:, -28:] == FILL).all()


@pytest.mark.parametrize("name", OPS)
def test_a_compiled_operation_equals_pillows_bit_for_bit(name: str) -> None:
    op = list(OPS).index(name)
    images = [*IMAGES, synthetic_image(5, 9), synthetic_image(9, 5), synthetic_image(2, 3), synthetic_image(3, 1)]
    generator = np.random.default_rng(op)
    images += [generator.integers(0, high, (size, size, 3), dtype=np.uint8) for high, size in ((256, 97), (3, 40))]
    for pixels in images:
        for magnitude in MAGNITUDES:
            for negative in (False, True):
                planes = np.ascontiguousarray(pixels.transpose(2, 0, 1))
                found = op_kernels.apply_op(planes, op, magnitude=magnitude, negative=negative, fill=FILL)
                image = apply_op(Image.fromarray(pixels), op, magnitude=magnitude, negative=negative, fill=FILL)
                assert np.array_equal(found.transpose(1, 2, 0), np.asarray(image)), (pixels.shape, magnitude, negative)
                assert np.array_equal(planes, pixels.transpose(2, 0, 1))


def test_crops_are_the_same_compiled_or_not(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = RECIPES["deit"]
    draws = draw_same_size(recipe, 0, range(40), height=200, width=150)
    image = synthetic_image(200, 150)
    compiled_crops = [render(image, draw, recipe) for draw in draws]
    monkeypatch.setattr("cskd_pipeline.crops.render.optional", lambda module: None)
    assert all(
        np.array_equal(render(image, draw, recipe), crop) for draw, crop in zip(draws, compiled_crops, strict=True)
    )
