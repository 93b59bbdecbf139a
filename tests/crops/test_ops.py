from __future__ import annotations

import random
from unittest import mock

import numpy as np
import pytest
from crop_cases import synthetic_image
from PIL import Image
from timm.data import auto_augment

from cskd_pipeline.crops.ops import OPS, apply_op
from cskd_pipeline.crops.recipe import RECIPES

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
