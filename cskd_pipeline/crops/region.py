"""The random resized region: where in the source image a crop is taken from.

Szegedy et al., "Going deeper with convolutions" (arXiv 1409.4842), as in torchvision and timm: ten attempts at a random
area and aspect ratio, then the largest central region of an allowed ratio.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cskd_pipeline.crops import exact
from cskd_pipeline.crops.philox import Key, sample_words

DOMAIN = 0
ATTEMPTS = 10

Ints = NDArray[np.int64]


class Boxes(NamedTuple):
    """int64 [n] each, pixels."""

    top: Ints
    left: Ints
    height: Ints
    width: Ints


def draw_regions(
    key: Key,
    samples_n: Ints,
    *,
    heights: Ints,
    widths: Ints,
    scale: tuple[float, float],
    ratio: tuple[float, float],
) -> Boxes:
    """One region per sample, in source pixels, inside the image.

    Unlike in timm, an attempt that rounds to an empty region fails, so even a 1 x 1 image has a region.

    Args:
        key: the seed's key.
        samples_n: int64 [n], sample indices.
        heights: int64 [n], source pixels.
        widths: int64 [n], source pixels.
        scale: smallest and largest share of the image's area.
        ratio: smallest and largest width / height, drawn uniformly on a log scale.
    """
    boxes = _central(heights, widths, ratio)
    log_ratio = exact.log(ratio[0]), exact.log(ratio[1])
    open_m = np.arange(len(samples_n))
    for attempt in range(ATTEMPTS):
        height_m, width_m = heights[open_m], widths[open_m]
        area, aspect, row, column = sample_words(key, samples_n[open_m], DOMAIN, attempt)
        area_m = exact.uniform(area, *scale) * (height_m * width_m)
        aspect_m = exact.exp(exact.uniform(aspect, *log_ratio))
        w = exact.rounded(np.sqrt(area_m * aspect_m))
        h = exact.rounded(np.sqrt(area_m / aspect_m))
        fits = (w > 0) & (h > 0) & (w <= width_m) & (h <= height_m)
        done = open_m[fits]
        boxes.height[done], boxes.width[done] = h[fits], w[fits]
        boxes.top[done] = exact.below(row, height_m - h + 1)[fits]
        boxes.left[done] = exact.below(column, width_m - w + 1)[fits]
        open_m = open_m[~fits]
        if not len(open_m):
            break
    return boxes


def _central(heights: Ints, widths: Ints, ratio: tuple[float, float]) -> Boxes:
    """The whole image, or its centre at the nearest allowed aspect ratio."""
    aspect_n = widths / heights
    h = np.where(aspect_n < ratio[0], exact.rounded(widths / ratio[0]), heights)
    w = np.where(aspect_n > ratio[1], exact.rounded(heights * ratio[1]), widths)
    h, w = np.clip(h, 1, heights), np.clip(w, 1, widths)
    return Boxes((heights - h) // 2, (widths - w) // 2, h, w)
