"""RandAugment's operations equal timm's by Pillow, and Pillow's compiled and as a batch of torch operations."""

from __future__ import annotations

import dataclasses
import random
from unittest import mock

import numpy as np
import pytest
import torch
from crop_cases import draw_same_size, synthetic_image
from PIL import Image
from pillow_ops import apply_op
from timm.data import auto_augment

from cskd_pipeline.crops import op_kernels
from cskd_pipeline.crops.batched_ops import augment
from cskd_pipeline.crops.draws import CROP_DRAW
from cskd_pipeline.crops.op_arguments import OPS
from cskd_pipeline.crops.rand_augment import MAGNITUDE_ONE, NO_OP
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


@pytest.mark.parametrize("name", OPS)
def test_an_operation_on_a_batch_equals_pillows_bit_for_bit(name: str) -> None:
    op = list(OPS).index(name)
    generator = np.random.default_rng(op)
    for side in (1, 2, 3, 7, 64, 97):
        images = [synthetic_image(side, side, which=which) for which in range(3)]
        images += [generator.integers(0, high, (side, side, 3), dtype=np.uint8) for high in (256, 3)]
        images.append(np.full((side, side, 3), 77, np.uint8))
        cases = [(image, m, negative) for image in images for m in MAGNITUDES for negative in (False, True)]
        draws = np.zeros(len(cases), CROP_DRAW)
        draws["op"], draws["op"][:, 1] = NO_OP, op  # in whichever layer
        draws["magnitude"][:, 1] = [round(m * MAGNITUDE_ONE) * (-1 if negative else 1) for _, m, negative in cases]
        batch = torch.from_numpy(np.stack([image.transpose(2, 0, 1) for image, *_ in cases]))
        before = batch.clone()
        found = augment(batch, draws, fill=FILL).numpy().transpose(0, 2, 3, 1)
        assert torch.equal(batch, before)
        for (image, magnitude, negative), ours in zip(cases, found, strict=True):
            negative = negative and magnitude > 0  # a magnitude of 0 has no sign
            theirs = apply_op(Image.fromarray(image), op, magnitude=magnitude, negative=negative, fill=FILL)
            assert np.array_equal(ours, np.asarray(theirs)), (image.shape, magnitude, negative)


def test_crops_are_the_same_augmented_as_a_batch() -> None:
    recipe = dataclasses.replace(RECIPES["deit"], rand_augment="rand-m9-n4-mstd2-inc1", size=32)
    draws = draw_same_size(recipe, 0, range(90), height=40, width=50)
    images = [synthetic_image(40, 50, which=which) for which in range(90)]
    bare = [render(image, draw, recipe, augment=False) for image, draw in zip(images, draws, strict=True)]
    found = augment(torch.from_numpy(np.stack(bare)), draws, fill=recipe.fill).numpy()
    for image, draw, plain, ours in zip(images, draws, bare, found, strict=True):
        assert np.array_equal(render(image, draw, recipe), ours)
        assert (draw["op"] == NO_OP).all() <= np.array_equal(plain, ours)


def test_a_crop_goes_through_its_operations_in_order() -> None:
    recipe = RECIPES["deit"]
    image = synthetic_image(200, 150)
    for draw in draw_same_size(recipe, 0, range(40), height=200, width=150):
        expected = Image.fromarray(render(image, draw, recipe, augment=False).transpose(1, 2, 0).copy())
        for op, magnitude in zip(draw["op"].tolist(), draw["magnitude"].tolist(), strict=True):
            if op != NO_OP:
                strength = abs(magnitude) / MAGNITUDE_ONE
                expected = apply_op(expected, op, magnitude=strength, negative=magnitude < 0, fill=recipe.fill)
        assert np.array_equal(render(image, draw, recipe).transpose(1, 2, 0), np.asarray(expected))
