"""RandAugment's operations on a CPU, compiled: timm's "increasing" set, with bicubic interpolation.

Every function gives the bytes of Pillow's C code: blends in fp32, geometry in fp64, each product and sum rounded by
itself and in Pillow's order. Wide instructions keep that, fused or reordered operations would not.
`tests/crops/test_ops.py` compares the two.

Pixels are uint8 [3, H, W], so that neighbours in memory are neighbours in the image.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cskd_pipeline.crops import op_arguments
from cskd_pipeline.crops.op_arguments import BLENDS, HISTOGRAMS, OPS, TABLES, Colour
from cskd_pipeline.runtime.compiled import jit


def apply_op(
    pixels_3HW: NDArray[np.uint8], op: int, *, magnitude: float, negative: bool, fill: Colour
) -> NDArray[np.uint8]:
    """A new image uint8 [3, H, W]: `pixels_3HW`, contiguous, after operation `OPS[op]` at a magnitude of 0..10."""
    name, share = OPS[op], magnitude / 10.0
    _, height, width = pixels_3HW.shape
    changed = np.empty_like(pixels_3HW)
    if name in TABLES:
        table_256 = np.array(op_arguments.table(name, share), np.uint8)
        _look_up(pixels_3HW, np.stack([table_256, table_256, table_256]), changed)
    elif name in HISTOGRAMS:
        table_3x256 = np.empty((3, 256), np.uint8)
        if name == "AutoContrast":
            _stretched(_histogram(pixels_3HW), table_3x256)
        else:
            _equalized(_histogram(pixels_3HW), table_3x256)
        _look_up(pixels_3HW, table_3x256, changed)
    elif name in BLENDS:
        factor = np.float32(op_arguments.enhancement(share, negative))
        if name == "ColorIncreasing":
            _colour(pixels_3HW, factor, changed)
        elif name == "SharpnessIncreasing":
            _sharpen(pixels_3HW, factor, changed)
        else:
            grey = _mean_grey(pixels_3HW) if name == "ContrastIncreasing" else 0
            table_3x256 = np.empty((3, 256), np.uint8)
            _blended(grey, factor, table_3x256)
            _look_up(pixels_3HW, table_3x256, changed)
    else:
        matrix = op_arguments.matrix(name, share, negative, width=width, height=height)
        fill_3 = np.array(fill, np.uint8)
        if name in ("ShearX", "TranslateXRel"):
            _along_rows(pixels_3HW, matrix[1], matrix[2], fill_3, changed)
        elif name in ("ShearY", "TranslateYRel"):  # the same on the transposed image
            turned, resampled = np.empty((2, 3, width, height), np.uint8)
            _transpose(pixels_3HW, turned)
            _along_rows(turned, matrix[3], matrix[5], fill_3, resampled)
            _transpose(resampled, changed)
        else:
            _affine(pixels_3HW, matrix, fill_3, changed)
    return changed


def load() -> None:
    """Load all compiled code, or compile it the first time on a machine, so that processes forked later need not."""
    pixels_3HW = np.zeros((3, 4, 4), np.uint8)
    for op in range(len(OPS)):
        apply_op(pixels_3HW, op, magnitude=5.0, negative=False, fill=(0, 0, 0))


@jit
def _look_up(pixels_3HW: Any, table_3x256: Any, changed_3HW: Any) -> None:
    for c in range(3):
        source, target, table = pixels_3HW[c].reshape(-1), changed_3HW[c].reshape(-1), table_3x256[c]
        for i in range(len(source)):
            target[i] = table[source[i]]


@jit
def _histogram(pixels_3HW: Any) -> Any:
    counts_3x256 = np.zeros((3, 256), np.int64)
    for c in range(3):
        source = pixels_3HW[c].reshape(-1)
        for i in range(len(source)):
            counts_3x256[c, source[i]] += 1
    return counts_3x256


@jit
def _stretched(counts_3x256: Any, table_3x256: Any) -> None:
    for c in range(3):
        low, high = 0, 255
        while low < 255 and counts_3x256[c, low] == 0:
            low += 1
        while high > 0 and counts_3x256[c, high] == 0:
            high -= 1
        scale = 255.0 / (high - low) if high > low else 1.0
        offset = -low * scale if high > low else 0.0
        for value in range(256):
            table_3x256[c, value] = min(max(int(value * scale + offset), 0), 255)


@jit
def _equalized(counts_3x256: Any, table_3x256: Any) -> None:
    for c in range(3):
        kinds, total, last = 0, 0, 0
        for value in range(256):
            if counts_3x256[c, value]:
                kinds, total, last = kinds + 1, total + counts_3x256[c, value], counts_3x256[c, value]
        step = (total - last) // 255
        below = step // 2
        for value in range(256):
            table_3x256[c, value] = value if kinds <= 1 or step == 0 else min(below // step, 255)
            below += counts_3x256[c, value]


@jit
def _grey(red: Any, green: Any, blue: Any) -> Any:
    """ITU-R 601-2 luma in 2^-16, as Pillow rounds it."""
    weighted = np.int32(red) * np.int32(19595) + np.int32(green) * np.int32(38470) + np.int32(blue) * np.int32(7471)
    return (weighted + np.int32(0x8000)) >> np.int32(16)


@jit
def _mean_grey(pixels_3HW: Any) -> int:
    red, green, blue = pixels_3HW[0].reshape(-1), pixels_3HW[1].reshape(-1), pixels_3HW[2].reshape(-1)
    total = 0
    for i in range(len(red)):
        total += _grey(red[i], green[i], blue[i])
    return int(total / len(red) + 0.5)


@jit
def _blend(degenerate: Any, value: Any, factor: Any) -> Any:
    mixed = np.float32(degenerate) + factor * np.float32(np.int32(value) - np.int32(degenerate))
    return np.uint8(np.int32(min(max(mixed, np.float32(0)), np.float32(255))))


@jit
def _blended(degenerate: int, factor: Any, table_3x256: Any) -> None:
    for value in range(256):
        for c in range(3):
            table_3x256[c, value] = _blend(degenerate, value, factor)


@jit
def _colour(pixels_3HW: Any, factor: Any, changed_3HW: Any) -> None:
    red, green, blue = pixels_3HW[0].reshape(-1), pixels_3HW[1].reshape(-1), pixels_3HW[2].reshape(-1)
    for c in range(3):
        source, target = pixels_3HW[c].reshape(-1), changed_3HW[c].reshape(-1)
        for i in range(len(source)):
            target[i] = _blend(_grey(red[i], green[i], blue[i]), source[i], factor)


@jit
def _sharpen(pixels_3HW: Any, factor: Any, changed_3HW: Any) -> None:
    """The degenerate is smoothed by (1 1 1, 1 5 1, 1 1 1) / 13, except at the border.

    Pillow's fp32 sum always rounds as the integer sum does: no sum is within 1/26 of a rounding boundary.
    """
    _, height, width = pixels_3HW.shape
    changed_3HW[:] = pixels_3HW
    for c in range(3):
        for y in range(1, height - 1):
            above, row, below, out = pixels_3HW[c, y - 1], pixels_3HW[c, y], pixels_3HW[c, y + 1], changed_3HW[c, y]
            for x in range(1, width - 1):
                around = np.int32(above[x - 1]) + np.int32(above[x]) + np.int32(above[x + 1])
                around += np.int32(row[x - 1]) + np.int32(5) * np.int32(row[x]) + np.int32(row[x + 1])
                around += np.int32(below[x - 1]) + np.int32(below[x]) + np.int32(below[x + 1])
                # (2 * around + 13) // 26 for all sums there are
                smooth = ((np.int32(2) * around + np.int32(13)) * np.int32(20165)) >> np.int32(19)
                out[x] = _blend(smooth, row[x], factor)


@jit
def _cubic(v1: Any, v2: Any, v3: Any, v4: Any, d: Any) -> Any:
    """The cubic convolution with a = -1 between v2 and v3, in Pillow's order of operations."""
    p2 = -v1 + v3
    p3 = 2 * (v1 - v2) + v3 - v4
    p4 = -v1 + v2 - v3 + v4
    return v2 + d * (p2 + d * (p3 + d * p4))


@jit
def _clipped(value: float) -> Any:
    value = value if value > 0.0 else 0.0  # unlike min and max, a single wide instruction
    value = value if value < 255.0 else 255.0
    return np.uint8(np.int32(value))


@jit
def _along_rows(pixels_3HW: Any, slope: float, offset: float, fill_3: Any, changed_3HW: Any) -> None:
    """Take x + 0.5 from (x + 0.5 + slope * (y + 0.5)) + offset. y stays as it is, where the cubic in y is exact.

    Neighbours are `shift` pixels away, which is constant along a row unless rounding changes it.
    """
    _, height, width = pixels_3HW.shape
    padded = np.empty(width + 4, np.float64)  # edges twice more on both sides
    shift_W, part_W = np.empty(width, np.int32), np.empty(width, np.float64)
    for y in range(height):
        across = slope * (y + 0.5)
        first, last = width, 0
        for x in range(width):
            place = ((x + 0.5) + across) + offset
            if place >= 0.0 and place < width:
                first, last = min(first, x), x + 1
        least, most = width, -width
        for x in range(first, last):
            place = (((x + 0.5) + across) + offset) - 0.5
            whole = np.floor(place)
            shift_W[x], part_W[x] = np.int32(whole) - x, place - whole
            least, most = min(least, shift_W[x]), max(most, shift_W[x])
        for c in range(3):
            row, out = pixels_3HW[c, y], changed_3HW[c, y]
            for x in range(width):
                padded[2 + x] = row[x]
            padded[0] = padded[1] = row[0]
            padded[width + 2] = padded[width + 3] = row[width - 1]
            for x in range(width):
                if x < first or x >= last:
                    out[x] = fill_3[c]
            if least == most:
                # Slices, indexed from 0 by the loop's own counter, are what compiles to wide instructions.
                at, count = first + least + 1, last - first
                one, two = padded[at : at + count], padded[at + 1 : at + 1 + count]
                three, four = padded[at + 2 : at + 2 + count], padded[at + 3 : at + 3 + count]
                part_n, out_n = part_W[first:last], out[first:last]
                for i in range(count):
                    out_n[i] = _clipped(_cubic(one[i], two[i], three[i], four[i], part_n[i]))
            else:
                for x in range(first, last):
                    at = x + shift_W[x] + 1
                    out[x] = _clipped(_cubic(padded[at], padded[at + 1], padded[at + 2], padded[at + 3], part_W[x]))


@jit
def _transpose(pixels_3HW: Any, turned_3WH: Any) -> None:
    _, height, width = pixels_3HW.shape
    for c in range(3):
        for top in range(0, height, 32):
            for left in range(0, width, 32):
                for y in range(top, min(top + 32, height)):
                    for x in range(left, min(left + 32, width)):
                        turned_3WH[c, x, y] = pixels_3HW[c, y, x]


@jit
def _affine(pixels_3HW: Any, matrix: Any, fill_3: Any, changed_3HW: Any) -> None:
    _, height, width = pixels_3HW.shape
    a, b, c, d, e, f = matrix
    pitch = width + 4
    padded_3N = np.empty((3, (height + 4) * pitch), np.float32)  # edges twice more on all sides
    for channel in range(3):
        for y in range(height + 4):
            row, target = pixels_3HW[channel, min(max(y - 2, 0), height - 1)], padded_3N[channel]
            for x in range(width):
                target[y * pitch + 2 + x] = row[x]
            target[y * pitch] = target[y * pitch + 1] = row[0]
            target[y * pitch + width + 2] = target[y * pitch + width + 3] = row[width - 1]
    at_W, right_W, down_W = np.empty(width, np.int32), np.empty(width, np.float64), np.empty(width, np.float64)
    for y in range(height):
        first, last = width, 0
        for x in range(width):
            across = (a * (x + 0.5) + b * (y + 0.5)) + c
            down = (d * (x + 0.5) + e * (y + 0.5)) + f
            covered = (across >= 0.0) & (across < width) & (down >= 0.0) & (down < height)
            left, top = np.floor(across - 0.5), np.floor(down - 0.5)
            right_W[x], down_W[x] = (across - 0.5) - left, (down - 0.5) - top
            at_W[x] = (np.int32(top) + 1) * pitch + np.int32(left) + 1 if covered else -1
        for x in range(width):
            if at_W[x] >= 0:
                first, last = min(first, x), x + 1
        for channel in range(3):
            plane, out = padded_3N[channel], changed_3HW[channel, y]
            for x in range(first, last):
                at, part = max(at_W[x], 0), right_W[x]
                v1 = _cubic_at(plane, at, part)
                v2 = _cubic_at(plane, at + pitch, part)
                v3 = _cubic_at(plane, at + 2 * pitch, part)
                v4 = _cubic_at(plane, at + 3 * pitch, part)
                out[x] = _clipped(_cubic(v1, v2, v3, v4, down_W[x]))
            for x in range(width):
                if at_W[x] < 0:
                    out[x] = fill_3[channel]


@jit
def _cubic_at(plane_N: Any, at: Any, part: Any) -> Any:
    return _cubic(
        np.float64(plane_N[at]),
        np.float64(plane_N[at + 1]),
        np.float64(plane_N[at + 2]),
        np.float64(plane_N[at + 3]),
        part,
    )
