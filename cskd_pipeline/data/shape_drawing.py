"""One image of the generated data set `shapes`: an object over clutter, a pure function of (split, index).

Every number comes from the raw stream of a Philox keyed by (version, split) with the index as counter, turned
into parameters by arithmetic that is rounded alike everywhere.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cskd_pipeline.data.shape_classes import CLUTTER, OUTLINES, UPRIGHT, Outline

VERSION = 1
"""Part of the key: another version draws other images. A version's images never change."""

SPLIT_STREAMS = {"train": 1, "val": 2}

_SIDE = (64, 96)
_RADIUS = (0.2, 0.4)
"""The object's radius, as a share of the shorter side."""

_CLUTTER_RADIUS = (0.05, 0.15)
_CLUTTER_BEHIND = (4, 8)
_CLUTTER_IN_FRONT = (0, 2)
_SUPERSAMPLING = 3
_SCALAR_WORDS = 160

Pixels = NDArray[np.float32]


class _Words:
    """Hands out raw 64-bit words as numbers; a cursor over one image's own stream."""

    def __init__(self, split: str, index: int) -> None:
        self._philox = np.random.Philox(key=[VERSION, SPLIT_STREAMS[split]], counter=[0, index, 0, 0])
        self._scalars = self._philox.random_raw(_SCALAR_WORDS).tolist()
        self._next = 0

    def unit(self) -> float:
        """A multiple of 2**-53 in [0, 1)."""
        word: int = self._scalars[self._next]
        self._next += 1
        return (word >> 11) * 2.0**-53

    def between(self, low: float, high: float) -> float:
        return low + (high - low) * self.unit()

    def integer(self, low: int, high: int) -> int:
        """One of low to high, both included."""
        return low + int(self.unit() * (high - low + 1))

    def colour(self, low: float, high: float) -> Pixels:
        return np.array([self.between(low, high) for _ in range(3)], dtype=np.float32)

    def noise(self, *shape: int) -> Pixels:
        """Whole numbers -128 to 127."""
        count = int(np.prod(shape))
        words: NDArray[np.uint64] = self._philox.random_raw(-(-count // 8))
        return words.astype("<u8").view(np.int8)[:count].reshape(shape).astype(np.float32)


def draw_shape(split: str, index: int) -> tuple[NDArray[np.uint8], int]:
    """The image, uint8 [h, w, 3] with sides of 64 to 96, and its label.

    Args:
        split: one of `SPLIT_STREAMS`.
        index: 0 or more; labels go round, so any number of images from 0 is balanced.
    """
    words = _Words(split, index)
    label = index % len(OUTLINES)
    name = list(OUTLINES)[label]
    height, width = words.integer(*_SIDE), words.integer(*_SIDE)
    canvas = _background(words, height, width)
    for _ in range(words.integer(*_CLUTTER_BEHIND)):
        _fragment(canvas, words)
    radius = words.between(*_RADIUS) * min(height, width)
    centre_y = words.between(radius, height - radius)
    centre_x = words.between(radius, width - radius)
    rotation = _rotation(words, full=name not in UPRIGHT)
    colour = _contrasting(canvas[int(centre_y), int(centre_x)], words)
    _paint(canvas, OUTLINES[name], centre=(centre_y, centre_x), radius=radius, rotation=rotation, colour=colour)
    for _ in range(words.integer(*_CLUTTER_IN_FRONT)):
        _fragment(canvas, words)
    canvas += words.between(0.03, 0.16) * words.noise(height, width, 3)
    return (np.clip(canvas, 0, 255) + 0.5).astype(np.uint8), label


def _background(words: _Words, height: int, width: int) -> Pixels:
    """A gradient between two colours with two octaves of smooth noise over it."""
    first, second = words.colour(30, 225), words.colour(30, 225)
    direction_y, direction_x = words.between(-1, 1), words.between(-1, 1)
    y = np.linspace(-0.5, 0.5, height, dtype=np.float32)[:, None]
    x = np.linspace(-0.5, 0.5, width, dtype=np.float32)[None, :]
    ramp = np.clip(0.5 + direction_y * y + direction_x * x, 0, 1)[:, :, None]
    canvas: Pixels = first + (second - first) * ramp
    for cells in (4, 11):
        canvas += words.between(0.05, 0.35) * _smooth(words.noise(cells + 1, cells + 1, 3), height, width)
    return canvas


def _smooth(grid: Pixels, height: int, width: int) -> Pixels:
    """[n, n, 3] interpolated linearly to [height, width, 3]."""
    for axis, size in ((0, height), (1, width)):
        at = np.arange(size, dtype=np.float32) * ((grid.shape[axis] - 1) / size)
        cell = at.astype(np.int64)
        share = (at - cell).astype(np.float32).reshape((size, 1, 1) if axis == 0 else (1, size, 1))
        low, high = grid.take(cell, axis), grid.take(cell + 1, axis)
        grid = low + (high - low) * share
    return grid


def _fragment(canvas: Pixels, words: _Words) -> None:
    height, width, _ = canvas.shape
    outline = CLUTTER[words.integer(0, len(CLUTTER) - 1)]
    radius = words.between(*_CLUTTER_RADIUS) * min(height, width)
    centre = (words.between(0, height), words.between(0, width))
    rotation = _rotation(words, full=True)
    _paint(canvas, outline, centre=centre, radius=radius, rotation=rotation, colour=words.colour(0, 255))


def _rotation(words: _Words, *, full: bool) -> tuple[float, float]:
    """(cosine, sine) of any angle, or of one within 17 degrees.

    By the tangent of half the angle: a rational parametrisation, so that no libm is asked.
    """
    tangent = words.between(-1, 1) if full else words.between(-0.15, 0.15)
    half_turn = -1.0 if full and words.unit() < 0.5 else 1.0
    norm = 1 + tangent * tangent
    return half_turn * (1 - tangent * tangent) / norm, half_turn * 2 * tangent / norm


def _contrasting(behind: Pixels, words: _Words) -> Pixels:
    """A colour that differs from the one behind it by 35 to 120 in every channel."""
    shifts = [words.between(35, 120) * (1 if words.unit() < 0.5 else -1) for _ in range(3)]
    shifted = [
        value + shift if 0 <= value + shift <= 255 else value - shift
        for value, shift in zip(behind.tolist(), shifts, strict=True)
    ]
    return np.array(shifted, dtype=np.float32)


def _paint(
    canvas: Pixels,
    outline: Outline,
    *,
    centre: tuple[float, float],
    radius: float,
    rotation: tuple[float, float],
    colour: Pixels,
) -> None:
    """Blends `colour` into `canvas` by the share of every pixel that the outline covers."""
    height, width, _ = canvas.shape
    centre_y, centre_x = centre
    reach = 1.45 * radius  # a square's corners, turned
    top, bottom = max(0, int(centre_y - reach)), min(height, int(centre_y + reach) + 1)
    left, right = max(0, int(centre_x - reach)), min(width, int(centre_x + reach) + 1)
    n = _SUPERSAMPLING
    y = _subpixels(top, bottom, centre=centre_y, radius=radius)[:, None]
    x = _subpixels(left, right, centre=centre_x, radius=radius)[None, :]
    cosine, sine = rotation
    inside = outline(cosine * x + sine * y, cosine * y - sine * x)
    covered = np.zeros((bottom - top, right - left), dtype=np.uint8)
    for down in range(n):
        for across in range(n):
            covered += inside[down::n, across::n]
    share = (covered.astype(np.float32) / (n * n))[:, :, None]
    region = canvas[top:bottom, left:right]
    region += (colour - region) * share


def _subpixels(start: int, stop: int, *, centre: float, radius: float) -> Pixels:
    """Where the sampling points of the pixels start to stop - 1 lie, in units of the radius from the centre."""
    points = np.arange((stop - start) * _SUPERSAMPLING).astype(np.float32)
    return (((points + 0.5) / _SUPERSAMPLING + (start - centre)) / radius).astype(np.float32)
