"""RandAugment's operations as numbers: tables, matrices and factors, in timm's arithmetic and order of operations.

An operation maps values by a table, maps coordinates by an affine matrix, blends the image with a degenerate of itself
by a factor, or follows from the image's histogram. `op_kernels` and `batched_ops` use the same numbers.

One thing differs from timm: rotation's matrix comes from `exact.cosine_and_sine` instead of libm. One in seven differs
from Pillow's by 1e-15, which changed no pixel of 800 rotated images of noise, but 15 in 320
rotated images of three colours and 97 x 97 pixels, where values fall on a rounding boundary.
"""

from __future__ import annotations

from cskd_pipeline.crops import exact

Colour = tuple[int, int, int]
Matrix = tuple[float, float, float, float, float, float]
"""(a, b, c, d, e, f): an output pixel's centre (x, y) is taken from (a x + b y + c, d x + e y + f)."""

OPS = (
    "AutoContrast",
    "Equalize",
    "Invert",
    "Rotate",
    "PosterizeIncreasing",
    "SolarizeIncreasing",
    "SolarizeAdd",
    "ColorIncreasing",
    "ContrastIncreasing",
    "BrightnessIncreasing",
    "SharpnessIncreasing",
    "ShearX",
    "ShearY",
    "TranslateXRel",
    "TranslateYRel",
)
"""timm's names in timm's order, which draws index: the order is part of recipe version 1."""

MAX_DEGREES = 30.0
MAX_SHEAR = 0.3
MAX_TRANSLATION = 0.45
MAX_ENHANCEMENT = 0.9

TABLES = frozenset({"Invert", "PosterizeIncreasing", "SolarizeIncreasing", "SolarizeAdd"})
HISTOGRAMS = frozenset({"AutoContrast", "Equalize"})
BLENDS = frozenset({"ColorIncreasing", "ContrastIncreasing", "BrightnessIncreasing", "SharpnessIncreasing"})
GEOMETRY = frozenset({"Rotate", "ShearX", "ShearY", "TranslateXRel", "TranslateYRel"})


def table(name: str, share: float) -> list[int]:
    """The new value of each value 0..255, for an operation of `TABLES` at this share (0..1) of its full strength."""
    values = range(256)
    if name == "Invert":
        return [255 - value for value in values]
    if name == "PosterizeIncreasing":  # to 0 bits: black, as Pillow gave before it began to refuse it
        bits = 4 - int(share * 4)
        return [value & (256 - (1 << (8 - bits))) for value in values]
    if name == "SolarizeIncreasing":
        threshold = 256 - int(share * 256)
        return [value if value < threshold else 255 - value for value in values]
    added = int(share * 110)
    return [min(255, value + added) if value < 128 else value for value in values]


def enhancement(share: float, negative: bool) -> float:
    """The factor of an operation of `BLENDS`: 0 gives the degenerate, 1 the image, more goes beyond."""
    return max(0.1, 1.0 + _signed(share * MAX_ENHANCEMENT, negative))


def matrix(name: str, share: float, negative: bool, *, width: int, height: int) -> Matrix:
    """The affine map of an operation of `GEOMETRY`."""
    if name == "Rotate":
        # Counter-clockwise by Pillow's convention: the matrix maps output to input, so it turns the other way.
        cosine, sine = exact.cosine_and_sine(_signed(-share * MAX_DEGREES, negative))
        # Fifteen decimals, as Pillow rounds its own.
        cosine, sine = round(cosine, 15), round(sine, 15)
        x, y = width / 2, height / 2
        across = cosine * -x + sine * -y + 0.0 + x
        down = -sine * -x + cosine * -y + 0.0 + y
        return cosine, sine, across, -sine, cosine, down
    if name == "ShearX":
        return 1.0, _signed(share * MAX_SHEAR, negative), 0.0, 0.0, 1.0, 0.0
    if name == "ShearY":
        return 1.0, 0.0, 0.0, _signed(share * MAX_SHEAR, negative), 1.0, 0.0
    if name == "TranslateXRel":
        return 1.0, 0.0, _signed(share * MAX_TRANSLATION, negative) * width, 0.0, 1.0, 0.0
    return 1.0, 0.0, 0.0, 0.0, 1.0, _signed(share * MAX_TRANSLATION, negative) * height


def _signed(value: float, negative: bool) -> float:
    return -value if negative else value
