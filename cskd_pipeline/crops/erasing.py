"""The erased box of a crop. Zhong et al., "Random erasing data augmentation", arXiv 1708.04896, as in timm."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cskd_pipeline.crops import exact
from cskd_pipeline.crops.philox import Key, sample_words
from cskd_pipeline.crops.region import Boxes

DOMAIN = 3
ATTEMPTS = 10
AREA = (0.02, 1 / 3)
ASPECT = (0.3, 1 / 0.3)


def draw_erased_boxes(key: Key, samples_n: NDArray[np.int64], *, erased: NDArray[np.bool_], size: int) -> Boxes:
    """One box per sample, in crop pixels; height 0 where nothing is erased.

    Args:
        key: the seed's key.
        samples_n: int64 [n], sample indices.
        erased: bool [n], whether to try a box at all (ten attempts may still fail to fit one).
        size: the crop's side in pixels.
    """
    boxes = Boxes(*(np.zeros_like(samples_n) for _ in range(4)))
    log_aspect = exact.log(ASPECT[0]), exact.log(ASPECT[1])
    open_m = np.flatnonzero(erased)
    for attempt in range(ATTEMPTS):
        if not len(open_m):
            break
        area, aspect, row, column = sample_words(key, samples_n[open_m], DOMAIN, attempt)
        area_m = exact.uniform(area, *AREA) * (size * size)
        aspect_m = exact.exp(exact.uniform(aspect, *log_aspect))
        h = exact.rounded(np.sqrt(area_m * aspect_m))
        w = exact.rounded(np.sqrt(area_m / aspect_m))
        fits = (h < size) & (w < size)
        done = open_m[fits]
        boxes.height[done], boxes.width[done] = h[fits], w[fits]
        boxes.top[done] = exact.below(row, size - h + 1)[fits]
        boxes.left[done] = exact.below(column, size - w + 1)[fits]
        open_m = open_m[~fits]
    return boxes
