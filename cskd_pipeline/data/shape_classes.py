"""The outlines of the generated data set `shapes`: for each class, which points of the plane belong to it.

An outline is a function of two fp32 arrays, u to the right and v downwards in units of the object's radius, and
gives bool of the same shape. Only additions, multiplications, divisions and comparisons occur, which IEEE 754
rounds alike everywhere: the same bits on every machine.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.float32]
Mask = NDArray[np.bool_]
Outline = Callable[[Plane, Plane], Mask]

_STAR_EDGES = ((0.0, 1.0), (0.9510565, 0.3090170), (0.5877853, -0.8090170))
"""Unit normals of a pentagram's edges; the other two are mirror images."""


def _inside_square(u: Plane, v: Plane, half: float) -> Mask:
    return np.maximum(np.abs(u), np.abs(v)) <= half


def _star(u: Plane, v: Plane) -> Mask:
    # A point lies in a pentagram if it lies on the inner side of at least four of its five edges.
    inner = np.zeros(u.shape, dtype=np.uint8)
    for normal_u, normal_v in _STAR_EDGES:
        for mirrored in {normal_u, -normal_u}:
            inner += mirrored * u + normal_v * v <= 0.31
    return inner >= 4


def _bars_across(u: Plane, v: Plane) -> Mask:
    inside: Mask = _inside_square(u, v, 0.9) & (np.floor((v + 0.9) / 0.36) % 2 == 0)
    return inside


def _heart(u: Plane, v: Plane) -> Mask:
    x, y = 1.25 * u, 0.12 - 1.2 * v
    sextic = x * x + y * y - 1
    inside: Mask = sextic * sextic * sextic - x * x * y * y * y <= 0
    return inside


def _dots(u: Plane, v: Plane) -> Mask:
    across, down = (u + 0.96) / 0.64, (v + 0.96) / 0.64
    off_u, off_v = across - np.floor(across) - 0.5, down - np.floor(down) - 0.5
    inside: Mask = _inside_square(u, v, 0.95) & (off_u * off_u + off_v * off_v <= 0.13)
    return inside


OUTLINES: dict[str, Outline] = {
    "disc": lambda u, v: u * u + v * v <= 0.9,
    "ring": lambda u, v: (u * u + v * v <= 0.95) & (u * u + v * v >= 0.38),
    "square": lambda u, v: _inside_square(u, v, 0.78),
    "frame": lambda u, v: _inside_square(u, v, 0.84) & ~_inside_square(u, v, 0.5),
    "triangle": lambda u, v: (v <= 0.6) & (v >= 1.75 * np.abs(u) - 1),
    "plus": lambda u, v: _inside_square(u, v, 0.95) & (np.minimum(np.abs(u), np.abs(v)) <= 0.27),
    "star": _star,
    "bars-across": _bars_across,
    "bars-upright": lambda u, v: _bars_across(v, u),
    "chequer": lambda u, v: (
        _inside_square(u, v, 0.9) & ((np.floor((u + 0.9) / 0.45) + np.floor((v + 0.9) / 0.45)) % 2 == 0)
    ),
    "half-moon": lambda u, v: (u * u + v * v <= 1) & ((u - 0.5) * (u - 0.5) + v * v >= 0.55),
    "arrow": lambda u, v: (
        ((np.abs(v) <= 0.2) & (u >= -0.95) & (u <= 0.2)) | ((u >= 0.05) & (np.abs(v) <= 0.85 * (0.98 - u)))
    ),
    "heart": _heart,
    "hourglass": lambda u, v: (np.abs(v) <= 0.85) & (np.abs(u) <= 0.06 + 0.8 * np.abs(v)),
    "dots": _dots,
    "tee": lambda u, v: (
        ((np.abs(u) <= 0.85) & (v >= -0.85) & (v <= -0.38)) | ((np.abs(u) <= 0.24) & (v >= -0.5) & (v <= 0.95))
    ),
}
"""Class name to outline, in label order."""

UPRIGHT = frozenset({"bars-across", "bars-upright"})
"""Classes that their direction alone tells apart: they are turned by a little only."""

CLUTTER: tuple[Outline, ...] = (
    lambda u, v: (np.abs(u) <= 0.95) & (np.abs(v) <= 0.13),
    lambda u, v: (u * u + v * v <= 0.95) & (u * u + v * v >= 0.55) & (u >= 1.7 * np.abs(v)),
    lambda u, v: (np.minimum(u, v) >= -0.7) & (np.minimum(u, v) <= -0.45) & (np.maximum(u, v) <= 0.5),
)
"""Fragments around the object: a thin straight one, a sixth of a thin ring, and two thin legs that meet."""
