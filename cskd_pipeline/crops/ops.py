"""RandAugment's operations on a Pillow image, equal to timm's bit for bit ("increasing" set, bicubic).

Arguments follow timm's arithmetic in the same order. Two things are our own: rotation's matrix comes from
`exact.cosine_and_sine` instead of libm (one in seven differs from Pillow's by 1e-15; no pixel did in 800 rotated
images of noise), and posterizing to 0 bits gives black, as Pillow did before it began to refuse it.
"""

from __future__ import annotations

from collections.abc import Callable

from PIL import Image, ImageEnhance, ImageOps

from cskd_pipeline.crops import exact

Colour = tuple[int, int, int]
Matrix = tuple[float, float, float, float, float, float]
Op = Callable[[Image.Image, float, bool, Colour], Image.Image]
"""(RGB image, share of the full magnitude in 0..1, negative direction, colour of uncovered pixels) -> RGB image."""

MAX_DEGREES = 30.0
MAX_SHEAR = 0.3
MAX_TRANSLATION = 0.45
MAX_ENHANCEMENT = 0.9


def _auto_contrast(image: Image.Image, _share: float, _negative: bool, _fill: Colour) -> Image.Image:
    return ImageOps.autocontrast(image)


def _equalize(image: Image.Image, _share: float, _negative: bool, _fill: Colour) -> Image.Image:
    return ImageOps.equalize(image)


def _invert(image: Image.Image, _share: float, _negative: bool, _fill: Colour) -> Image.Image:
    return ImageOps.invert(image)


def _rotate(image: Image.Image, share: float, negative: bool, fill: Colour) -> Image.Image:
    # Counter-clockwise by Pillow's convention: the matrix maps output to input, so it turns the other way.
    cosine, sine = exact.cosine_and_sine(_signed(-share * MAX_DEGREES, negative))
    # Fifteen decimals, as Pillow rounds its own.
    cosine, sine = round(cosine, 15), round(sine, 15)
    x, y = image.width / 2, image.height / 2
    across = cosine * -x + sine * -y + 0.0 + x
    down = -sine * -x + cosine * -y + 0.0 + y
    return _affine(image, (cosine, sine, across, -sine, cosine, down), fill)


def _posterize(image: Image.Image, share: float, _negative: bool, _fill: Colour) -> Image.Image:
    bits = 4 - int(share * 4)
    return ImageOps.posterize(image, bits) if bits else Image.new("RGB", image.size)


def _solarize(image: Image.Image, share: float, _negative: bool, _fill: Colour) -> Image.Image:
    return ImageOps.solarize(image, 256 - int(share * 256))


def _solarize_add(image: Image.Image, share: float, _negative: bool, _fill: Colour) -> Image.Image:
    added = int(share * 110)
    return image.point([min(255, i + added) if i < 128 else i for i in range(256)] * 3)


def _color(image: Image.Image, share: float, negative: bool, _fill: Colour) -> Image.Image:
    return ImageEnhance.Color(image).enhance(_enhancement(share, negative))


def _contrast(image: Image.Image, share: float, negative: bool, _fill: Colour) -> Image.Image:
    return ImageEnhance.Contrast(image).enhance(_enhancement(share, negative))


def _brightness(image: Image.Image, share: float, negative: bool, _fill: Colour) -> Image.Image:
    return ImageEnhance.Brightness(image).enhance(_enhancement(share, negative))


def _sharpness(image: Image.Image, share: float, negative: bool, _fill: Colour) -> Image.Image:
    return ImageEnhance.Sharpness(image).enhance(_enhancement(share, negative))


def _shear_x(image: Image.Image, share: float, negative: bool, fill: Colour) -> Image.Image:
    return _affine(image, (1, _signed(share * MAX_SHEAR, negative), 0, 0, 1, 0), fill)


def _shear_y(image: Image.Image, share: float, negative: bool, fill: Colour) -> Image.Image:
    return _affine(image, (1, 0, 0, _signed(share * MAX_SHEAR, negative), 1, 0), fill)


def _translate_x(image: Image.Image, share: float, negative: bool, fill: Colour) -> Image.Image:
    return _affine(image, (1, 0, _signed(share * MAX_TRANSLATION, negative) * image.width, 0, 1, 0), fill)


def _translate_y(image: Image.Image, share: float, negative: bool, fill: Colour) -> Image.Image:
    return _affine(image, (1, 0, 0, 0, 1, _signed(share * MAX_TRANSLATION, negative) * image.height), fill)


OPS: dict[str, Op] = {
    "AutoContrast": _auto_contrast,
    "Equalize": _equalize,
    "Invert": _invert,
    "Rotate": _rotate,
    "PosterizeIncreasing": _posterize,
    "SolarizeIncreasing": _solarize,
    "SolarizeAdd": _solarize_add,
    "ColorIncreasing": _color,
    "ContrastIncreasing": _contrast,
    "BrightnessIncreasing": _brightness,
    "SharpnessIncreasing": _sharpness,
    "ShearX": _shear_x,
    "ShearY": _shear_y,
    "TranslateXRel": _translate_x,
    "TranslateYRel": _translate_y,
}
"""timm's names in timm's order, which draws index: the order is part of recipe version 1."""

_OPS_IN_ORDER = tuple(OPS.values())


def apply_op(image: Image.Image, op: int, *, magnitude: float, negative: bool, fill: Colour) -> Image.Image:
    """A new RGB image of the same size: `image` after operation number `op` of OPS at a magnitude of 0..10."""
    return _OPS_IN_ORDER[op](image, magnitude / 10.0, negative, fill)


def _signed(value: float, negative: bool) -> float:
    return -value if negative else value


def _enhancement(share: float, negative: bool) -> float:
    return max(0.1, 1.0 + _signed(share * MAX_ENHANCEMENT, negative))


def _affine(image: Image.Image, matrix: Matrix, fill: Colour) -> Image.Image:
    return image.transform(
        image.size, Image.Transform.AFFINE, matrix, resample=Image.Resampling.BICUBIC, fillcolor=fill
    )
