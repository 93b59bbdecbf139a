"""One fixed-size record per crop: everything that happens to an image, as integers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cskd_pipeline.crops import exact
from cskd_pipeline.crops.erasing import draw_erased_boxes
from cskd_pipeline.crops.mixing import draw_mixes
from cskd_pipeline.crops.philox import Key, sample_words, stream_key
from cskd_pipeline.crops.rand_augment import MAX_LAYERS, NO_OP, RandAugment, draw_layers
from cskd_pipeline.crops.region import draw_regions

if TYPE_CHECKING:
    from cskd_pipeline.crops.recipe import CropRecipe

DOMAIN_CHOICE = 1
DOMAIN_POSITION = 7

CROP_DRAW = np.dtype(
    [
        ("seed", "<i8"),
        ("sample", "<i8"),
        ("partner", "<i8"),  # the sample it is mixed with; itself if not mixed
        ("noise", "<u8"),  # names the erased box's noise, see `finish`
        ("top", "<i4"),  # the region, in source pixels
        ("left", "<i4"),
        ("height", "<i4"),
        ("width", "<i4"),
        ("lam", "<u4"),  # share of the crop's own pixels and label, in 1/65536; 65536 if not mixed
        ("magnitude", "<i2", MAX_LAYERS),  # RandAugment: signed, in 1/2048
        ("op", "u1", MAX_LAYERS),  # RandAugment: index into ops.OPS, or 255 for none
        ("erase_top", "<u2"),  # the erased box, in crop pixels; height or width 0 for none
        ("erase_left", "<u2"),
        ("erase_height", "<u2"),
        ("erase_width", "<u2"),
        ("cut_top", "<u2"),  # CutMix: rows top..bottom-1 and columns left..right-1 are the partner's
        ("cut_left", "<u2"),
        ("cut_bottom", "<u2"),
        ("cut_right", "<u2"),
        ("flip", "?"),
        ("mix", "u1"),  # of mixing.Mix
    ]
)

# A structured dtype has no finer static type; `CROP_DRAW` is what these arrays hold.
Draws = NDArray[np.void]

# The arrays of one Philox round then stay in a core's cache: three times as fast as all crops at once.
_CROPS_AT_ONCE = 1 << 14


def draw_crops(
    recipe: CropRecipe,
    seed: int,
    samples_n: NDArray[np.int64],
    partners_n: NDArray[np.int64],
    *,
    heights: NDArray[np.int64],
    widths: NDArray[np.int64],
) -> Draws:
    """See `CropRecipe.draw`."""
    key = stream_key(version=recipe.version, key=recipe.key, seed=seed)
    out_n = np.zeros(len(samples_n), CROP_DRAW)
    out_n["seed"], out_n["sample"] = seed, samples_n
    out_n["partner"] = partners_n
    for start in range(0, len(out_n), _CROPS_AT_ONCE):
        part = slice(start, start + _CROPS_AT_ONCE)
        _draw_part(out_n[part], recipe, key, heights=heights[part], widths=widths[part])
    return out_n


def draw_positions(recipe: CropRecipe, seed: int, samples_n: NDArray[np.int64], *, positions: int) -> NDArray[np.int64]:
    """A random word for each of a grid's positions, int64 [n, positions]: those with the least words are kept."""
    key = stream_key(version=recipe.version, key=recipe.key, seed=seed)
    words = [sample_words(key, samples_n, DOMAIN_POSITION, block) for block in range(-(-positions // 4))]
    return np.stack([word_n for four in words for word_n in four], 1)[:, :positions]


def _draw_part(
    out_n: Draws, recipe: CropRecipe, key: Key, *, heights: NDArray[np.int64], widths: NDArray[np.int64]
) -> None:
    samples_n = out_n["sample"]
    region = draw_regions(key, samples_n, heights=heights, widths=widths, scale=recipe.scale, ratio=recipe.ratio)
    for field, values_n in region._asdict().items():
        out_n[field] = values_n

    flip, erased, noise_low, noise_high = sample_words(key, samples_n, DOMAIN_CHOICE)
    out_n["flip"] = exact.chance(flip, recipe.flip)
    out_n["noise"] = noise_high.astype(np.uint64) << np.uint64(32) | noise_low.astype(np.uint64)
    boxes = draw_erased_boxes(key, samples_n, erased=exact.chance(erased, recipe.erase), size=recipe.size)
    for field, values_n in boxes._asdict().items():
        out_n[f"erase_{field}"] = values_n

    out_n["op"] = NO_OP
    if recipe.rand_augment is not None:
        out_n["op"], out_n["magnitude"] = draw_layers(key, samples_n, RandAugment.parse(recipe.rand_augment))

    mixes = draw_mixes(
        key,
        samples_n,
        out_n["partner"],
        mixup=recipe.mixup,
        cutmix=recipe.cutmix,
        switch=recipe.mix_switch,
        size=recipe.size,
    )
    out_n["mix"], out_n["lam"] = mixes.kind, mixes.lam
    for field in ("top", "left", "bottom", "right"):
        out_n[f"cut_{field}"] = getattr(mixes, field)
