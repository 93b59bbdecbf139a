"""RandAugment's operations by Pillow, from our tables, factors and matrices: what all other ways must equal."""

from __future__ import annotations

from PIL import Image, ImageEnhance, ImageOps

from cskd_pipeline.crops import op_arguments
from cskd_pipeline.crops.op_arguments import BLENDS, GEOMETRY, OPS, TABLES, Colour

_ENHANCERS = {
    "ColorIncreasing": ImageEnhance.Color,
    "ContrastIncreasing": ImageEnhance.Contrast,
    "BrightnessIncreasing": ImageEnhance.Brightness,
    "SharpnessIncreasing": ImageEnhance.Sharpness,
}


def apply_op(image: Image.Image, op: int, *, magnitude: float, negative: bool, fill: Colour) -> Image.Image:
    """A new RGB image of the same size: `image` after operation number `op` of OPS at a magnitude of 0..10."""
    name, share = OPS[op], magnitude / 10.0
    if name in TABLES:
        return image.point(op_arguments.table(name, share) * 3)
    if name in BLENDS:
        return _ENHANCERS[name](image).enhance(op_arguments.enhancement(share, negative))
    if name in GEOMETRY:
        matrix = op_arguments.matrix(name, share, negative, width=image.width, height=image.height)
        bicubic = Image.Resampling.BICUBIC
        return image.transform(image.size, Image.Transform.AFFINE, matrix, resample=bicubic, fillcolor=fill)
    return ImageOps.autocontrast(image) if name == "AutoContrast" else ImageOps.equalize(image)
