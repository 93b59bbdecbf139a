"""Images and batches made by integer arithmetic, for the tests of this folder."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cskd_pipeline.crops.draws import Draws
from cskd_pipeline.crops.recipe import CropRecipe


def synthetic_image(height: int, width: int, *, which: int = 0) -> NDArray[np.uint8]:
    """uint8 [height, width, 3]: ramps, a coarse and a fine pattern, no two channels alike."""
    y, x = np.mgrid[:height, :width].astype(np.int64)
    ramp = (x * 255 // max(1, width - 1) + which * 37) % 256
    rings = ((x - width // 2) ** 2 + (y - height // 3) ** 2) // 64 % 256
    hashed = (x * 2654435761 + y * 40503 + which * 97) >> 7 & 127
    return np.stack([ramp, rings, (y * 3 + hashed) % 256], 2).astype(np.uint8)


def draw_same_size(
    recipe: CropRecipe, seed: int, samples: object, *, height: int = 375, width: int = 500, total: int = 1 << 20
) -> Draws:
    """Draws of samples whose images all have one size."""
    samples_n = np.asarray(samples)
    sizes = np.full((2, len(samples_n)), [[height], [width]])
    return recipe.draw(seed, samples_n, heights=sizes[0], widths=sizes[1], total=total)


def ks_distance(first: object, second: object) -> float:
    """The two-sample Kolmogorov-Smirnov statistic over its value at the 0.1 % level: below 1 if alike."""
    a, b = np.sort(np.asarray(first, float)), np.sort(np.asarray(second, float))
    at = np.concatenate([a, b])
    gap = np.abs(np.searchsorted(a, at, "right") / len(a) - np.searchsorted(b, at, "right") / len(b)).max()
    return float(gap / (1.95 * np.sqrt(1 / len(a) + 1 / len(b))))
