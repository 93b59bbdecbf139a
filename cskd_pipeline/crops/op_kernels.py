"""RandAugment's operations compiled by numba; importing this module needs it (the extra "fast").

Every function gives the bytes of Pillow's C code, operation by operation: blends in fp32, geometry in fp64, each
product and sum rounded on its own and in Pillow's order, so that the processor's wide instructions may be used but
nothing may be fused or reordered. `tests/crops/test_ops.py` compares them.

Pixels are uint8 [H, W, 3]; inner loops run over a row's 3 * W bytes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cskd_pipeline.crops import op_arguments
from cskd_pipeline.crops.op_arguments import BLENDS, HISTOGRAMS, OPS, TABLES, Colour
from cskd_pipeline.records.accelerators import jit


def apply_op(
    pixels_HW3: NDArray[np.uint8], op: int, *, magnitude: float, negative: bool, fill: Colour
) -> NDArray[np.uint8]:
    """What `ops.apply_op` gives: a new image, from contiguous RGB pixels."""
    name, share = OPS[op], magnitude / 10.0
    height, width, _ = pixels_HW3.shape
    changed = np.empty_like(pixels_HW3)
    if name in TABLES:
        table_256 = np.array(op_arguments.table(name, share), np.uint8)
        _look_up(pixels_HW3, np.stack([table_256, table_256, table_256]), changed)
    elif name in HISTOGRAMS:
        table_3x256 = np.empty((3, 256), np.uint8)
        if name == "AutoContrast":
            _stretched(_histogram(pixels_HW3), table_3x256)
        else:
            _equalized(_histogram(pixels_HW3), table_3x256)
        _look_up(pixels_HW3, table_3x256, changed)
    elif name in BLENDS:
        factor = np.float32(op_arguments.enhancement(share, negative))
        if name == "ColorIncreasing":
            _colour(pixels_HW3, factor, changed)
        elif name == "SharpnessIncreasing":
            _sharpen(pixels_HW3, factor, changed)
        else:
            grey = _mean_grey(pixels_HW3) if name == "ContrastIncreasing" else 0
            table_3x256 = np.empty((3, 256), np.uint8)
            _blended(grey, factor, table_3x256)
            _look_up(pixels_HW3, table_3x256, changed)
    else:
        matrix = op_arguments.matrix(name, share, negative, width=width, height=height)
        fill_3 = np.array(fill, np.uint8)
        if name in ("ShearX", "TranslateXRel"):
            _along_rows(pixels_HW3, matrix[1], matrix[2], fill_3, changed)
        elif name in ("ShearY", "TranslateYRel"):  # the same on the transposed image
            turned, resampled = np.empty((2, width, height, 3), np.uint8)
            _transpose(pixels_HW3, turned)
            _along_rows(turned, matrix[3], matrix[5], fill_3, resampled)
            _transpose(resampled, changed)
        else:
            _affine(pixels_HW3, matrix, fill_3, changed)
    return changed


@jit
def _look_up(pixels_HW3: Any, table_3x256: Any, changed_HW3: Any) -> None:
    source, target = pixels_HW3.reshape(-1), changed_HW3.reshape(-1)
    for i in range(0, len(source), 3):
        target[i] = table_3x256[0, source[i]]
        target[i + 1] = table_3x256[1, source[i + 1]]
        target[i + 2] = table_3x256[2, source[i + 2]]


@jit
def _histogram(pixels_HW3: Any) -> Any:
    source = pixels_HW3.reshape(-1)
    counts_3x256 = np.zeros((3, 256), np.int64)
    for i in range(0, len(source), 3):
        counts_3x256[0, source[i]] += 1
        counts_3x256[1, source[i + 1]] += 1
        counts_3x256[2, source[i + 2]] += 1
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
def _mean_grey(pixels_HW3: Any) -> int:
    source = pixels_HW3.reshape(-1)
    total = 0
    for i in range(0, len(source), 3):
        total += _grey(source[i], source[i + 1], source[i + 2])
    return int(total / (len(source) // 3) + 0.5)


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
def _colour(pixels_HW3: Any, factor: Any, changed_HW3: Any) -> None:
    source, target = pixels_HW3.reshape(-1), changed_HW3.reshape(-1)
    for i in range(0, len(source), 3):
        grey = _grey(source[i], source[i + 1], source[i + 2])
        for c in range(3):
            target[i + c] = _blend(grey, source[i + c], factor)


@jit
def _sharpen(pixels_HW3: Any, factor: Any, changed_HW3: Any) -> None:
    """The degenerate is smoothed by (1 1 1, 1 5 1, 1 1 1) / 13, but for the border.

    Pillow's fp32 sum is within 1/26 of nothing that would round otherwise: whole numbers give the same.
    """
    height, width, _ = pixels_HW3.shape
    source, target = pixels_HW3.reshape(height, width * 3), changed_HW3.reshape(height, width * 3)
    target[:] = source
    for y in range(1, height - 1):
        above, row, below, out = source[y - 1], source[y], source[y + 1], target[y]
        for i in range(3, width * 3 - 3):
            around = np.int32(above[i - 3]) + np.int32(above[i]) + np.int32(above[i + 3])
            around += np.int32(row[i - 3]) + np.int32(5) * np.int32(row[i]) + np.int32(row[i + 3])
            around += np.int32(below[i - 3]) + np.int32(below[i]) + np.int32(below[i + 3])
            # (2 * around + 13) // 26 for all sums there are
            smooth = ((np.int32(2) * around + np.int32(13)) * np.int32(20165)) >> np.int32(19)
            out[i] = _blend(smooth, row[i], factor)


@jit
def _cubic(v1: Any, v2: Any, v3: Any, v4: Any, d: Any) -> Any:
    """Catmull-Rom's cousin with a = -1 between v2 and v3, in Pillow's order of operations."""
    p2 = -v1 + v3
    p3 = 2 * (v1 - v2) + v3 - v4
    p4 = -v1 + v2 - v3 + v4
    return v2 + d * (p2 + d * (p3 + d * p4))


@jit
def _clipped(value: float) -> Any:
    return np.uint8(np.int32(min(max(value, 0.0), 255.0)))


@jit
def _along_rows(pixels_HW3: Any, slope: float, offset: float, fill_3: Any, changed_HW3: Any) -> None:
    """x + 0.5 is taken from (x + 0.5 + slope * (y + 0.5)) + offset; y stays, where the cubic in y is exact.

    Neighbours are `shift` pixels away, the same all along a row except where rounding has it otherwise.
    """
    height, width, _ = pixels_HW3.shape
    source, target = pixels_HW3.reshape(height, width * 3), changed_HW3.reshape(height, width * 3)
    padded = np.empty((width + 4) * 3, np.float64)  # edges twice more on both sides
    shift_W, part_3W = np.empty(width, np.int32), np.empty(width * 3, np.float64)
    for y in range(height):
        row, out = source[y], target[y]
        across = slope * (y + 0.5)
        for i in range(width * 3):
            padded[6 + i] = row[i]
        for c in range(3):
            padded[c] = padded[3 + c] = row[c]
            padded[(width + 2) * 3 + c] = padded[(width + 3) * 3 + c] = row[(width - 1) * 3 + c]
        first, last = width, 0
        for x in range(width):
            place = ((x + 0.5) + across) + offset
            if place >= 0.0 and place < width:
                first, last = min(first, x), x + 1
        for x in range(width):
            if x < first or x >= last:
                for c in range(3):
                    out[3 * x + c] = fill_3[c]
        least, most = width, -width
        for x in range(first, last):
            place = (((x + 0.5) + across) + offset) - 0.5
            whole = np.floor(place)
            shift_W[x] = np.int32(whole) - x
            part_3W[3 * x] = part_3W[3 * x + 1] = part_3W[3 * x + 2] = place - whole
            least, most = min(least, shift_W[x]), max(most, shift_W[x])
        if least == most:
            at = 3 * (least + 1)
            for i in range(3 * first, 3 * last):
                out[i] = _clipped(
                    _cubic(padded[i + at], padded[i + at + 3], padded[i + at + 6], padded[i + at + 9], part_3W[i])
                )
        else:
            for x in range(first, last):
                for c in range(3):
                    i = 3 * x + c
                    at = i + 3 * (shift_W[x] + 1)
                    out[i] = _clipped(_cubic(padded[at], padded[at + 3], padded[at + 6], padded[at + 9], part_3W[i]))


@jit
def _transpose(pixels_HW3: Any, turned_WH3: Any) -> None:
    height, width, _ = pixels_HW3.shape
    for top in range(0, height, 16):
        for left in range(0, width, 16):
            for y in range(top, min(top + 16, height)):
                for x in range(left, min(left + 16, width)):
                    for c in range(3):
                        turned_WH3[x, y, c] = pixels_HW3[y, x, c]


@jit
def _affine(pixels_HW3: Any, matrix: Any, fill_3: Any, changed_HW3: Any) -> None:
    height, width, _ = pixels_HW3.shape
    a, b, c, d, e, f = matrix
    pitch = width + 4
    padded_3N = np.empty((3, (height + 4) * pitch), np.float32)  # edges twice more on all sides
    for y in range(height + 4):
        for x in range(pitch):
            for channel in range(3):
                padded_3N[channel, y * pitch + x] = pixels_HW3[
                    min(max(y - 2, 0), height - 1), min(max(x - 2, 0), width - 1), channel
                ]
    at_W, right_W, down_W = np.empty(width, np.int32), np.empty(width, np.float64), np.empty(width, np.float64)
    out_3W = np.zeros((3, width), np.uint8)
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
            plane, out = padded_3N[channel], out_3W[channel]
            for x in range(first, last):
                at, part = at_W[x], right_W[x]
                v1 = _cubic_at(plane, at, part)
                v2 = _cubic_at(plane, at + pitch, part)
                v3 = _cubic_at(plane, at + 2 * pitch, part)
                v4 = _cubic_at(plane, at + 3 * pitch, part)
                out[x] = _clipped(_cubic(v1, v2, v3, v4, down_W[x]))
        for x in range(width):
            for channel in range(3):
                changed_HW3[y, x, channel] = out_3W[channel, x] if at_W[x] >= 0 else fill_3[channel]


@jit
def _cubic_at(plane_N: Any, at: Any, part: Any) -> Any:
    return _cubic(
        np.float64(plane_N[at]),
        np.float64(plane_N[at + 1]),
        np.float64(plane_N[at + 2]),
        np.float64(plane_N[at + 3]),
        part,
    )
