"""The uint8 pixels of a crop, before erasing and mixing, from the decoded image and one draw.

Each step gives the same bits in all releases and on all machines: torch's antialiased bicubic resize of uint8 works on
integers, and `op_kernels` rounds every product and sum as IEEE 754 defines.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from cskd_pipeline.crops.op_kernels import apply_op
from cskd_pipeline.crops.rand_augment import MAGNITUDE_ONE, NO_OP
from cskd_pipeline.crops.recipe import CropRecipe


def render(image: NDArray[np.uint8], draw: np.void, recipe: CropRecipe, *, augment: bool = True) -> NDArray[np.uint8]:
    """uint8 [3, S, S], contiguous: region -> resize -> flip -> RandAugment.

    Args:
        image: uint8 [h, w, 3], RGB, the decoded source image.
        draw: a `CROP_DRAW` record, drawn for an image of this height and width.
        recipe: the recipe that made the draw.
        augment: whether to apply RandAugment; otherwise `batched_ops.augment` does it later.

    Raises:
        ValueError: the region is not inside the image: the draw is for another image.
    """
    top, left = int(draw["top"]), int(draw["left"])
    bottom, right = top + int(draw["height"]), left + int(draw["width"])
    if image.ndim != 3 or image.shape[2] != 3 or bottom > image.shape[0] or right > image.shape[1]:
        raise ValueError(
            f"sample {draw['sample']}: region of rows {top}..{bottom} and columns {left}..{right} "
            f"does not lie in an image of shape {image.shape}"
        )
    return render_region(image[top:bottom, left:right], draw, recipe, augment=augment)


def render_region(
    region: NDArray[np.uint8], draw: np.void, recipe: CropRecipe, *, augment: bool = True
) -> NDArray[np.uint8]:
    """The result of `render`, from the pixels of the draw's region alone."""
    crop_3SS = resize(region, height=recipe.size, width=recipe.size).transpose(2, 0, 1)
    if draw["flip"]:
        crop_3SS = torch.from_numpy(crop_3SS).flip(2).numpy()  # ten times as fast as NumPy's
    crop_3SS = np.ascontiguousarray(crop_3SS)
    for op, magnitude in zip(draw["op"].tolist(), draw["magnitude"].tolist(), strict=True):
        if augment and op != NO_OP:
            strength = abs(magnitude) / MAGNITUDE_ONE
            crop_3SS = apply_op(crop_3SS, op, magnitude=strength, negative=magnitude < 0, fill=recipe.fill)
    return crop_3SS


def resize(image: NDArray[np.uint8], *, height: int, width: int) -> NDArray[np.uint8]:
    """uint8 [height, width, 3] from uint8 [h, w, 3], bicubic (a = -1/2) and antialiased, integer arithmetic."""
    # A copy: torch wants writable memory, which an image from a decoder often is not.
    pixels_13hw = torch.from_numpy(image.copy()).permute(2, 0, 1)[None]
    resized_13HW = torch.nn.functional.interpolate(pixels_13hw, size=(height, width), mode="bicubic", antialias=True)
    resized: NDArray[np.uint8] = resized_13HW[0].permute(1, 2, 0).numpy()
    return resized
