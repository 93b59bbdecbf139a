"""The crop used for evaluation: the centre of the resized image."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from cskd_pipeline.crops.render import resize


def evaluation_crop(image: NDArray[np.uint8], *, size: int, crop_pct: float) -> NDArray[np.uint8]:
    """uint8 [3, size, size], contiguous: shorter side resized to floor(size / crop_pct), then the centre.

    Args:
        image: uint8 [h, w, 3], RGB.
        size: the crop's side in pixels.
        crop_pct: the crop's side as a share of the resized image's shorter side, in (0, 1].

    Raises:
        ValueError: `crop_pct` is outside its bounds.
    """
    if not 0 < crop_pct <= 1:
        raise ValueError(f"crop_pct must be above 0 and at most 1, found {crop_pct}")
    target = math.floor(size / crop_pct)
    h, w = image.shape[:2]
    shorter = min(h, w)
    resized = resize(image, height=target * h // shorter, width=target * w // shorter)
    # Python's round, halves to even, as torchvision's centre crop.
    top, left = round((resized.shape[0] - size) / 2), round((resized.shape[1] - size) / 2)
    return np.ascontiguousarray(resized[top : top + size, left : left + size].transpose(2, 0, 1))
