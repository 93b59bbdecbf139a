"""RandAugment on a whole batch by torch, on any device with fp64, to the bytes of `op_kernels`.

Blends are separate fp32 operations and geometry separate fp64 operations, each rounded exactly by IEEE 754, in Pillow's
order; everything else is integers. Nothing here may be fused (as `torch.compile` would) or reordered. Floats are
divided tensor by tensor only: to divide by a Python number, torch multiplies by its rounded reciprocal.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cskd_pipeline.crops import op_arguments
from cskd_pipeline.crops.draws import Draws
from cskd_pipeline.crops.op_arguments import BLENDS, GEOMETRY, HISTOGRAMS, OPS, TABLES, Colour
from cskd_pipeline.crops.rand_augment import MAGNITUDE_ONE, MAX_LAYERS

_AT_ONCE = 32
"""Crops; bounds memory: geometry needs about 6 MiB per crop of 224 x 224 pixels."""

Strengths = list[tuple[str, float, bool]]
"""For each crop, the operation's name, its share of full strength (0..1), and whether it is negative."""


@torch.no_grad()
def augment(crops_B3SS: Tensor, draws_B: Draws, *, fill: Colour) -> Tensor:
    """uint8 [B, 3, S, S] on the same device: every crop after all of its operations.

    Args:
        crops_B3SS: uint8, crops before RandAugment.
        draws_B: `CROP_DRAW` [B], their draws.
        fill: colour of pixels that geometric operations uncover.
    """
    augmented_B3SS = crops_B3SS.clone()
    for layer in range(MAX_LAYERS):
        op_B, magnitude_B = draws_B["op"][:, layer], draws_B["magnitude"][:, layer].astype(np.int64)
        for names, change in _KINDS:
            rows = np.flatnonzero(np.isin(op_B, [OPS.index(name) for name in names]))
            for start in range(0, len(rows), _AT_ONCE):
                some = rows[start : start + _AT_ONCE]
                strengths = [
                    (OPS[op], abs(magnitude) / MAGNITUDE_ONE / 10.0, magnitude < 0)
                    for op, magnitude in zip(op_B[some].tolist(), magnitude_B[some].tolist(), strict=True)
                ]
                at = torch.from_numpy(some).to(crops_B3SS.device)
                augmented_B3SS[at] = change(augmented_B3SS[at], strengths, fill)
    return augmented_B3SS


def _by_table(pixels_n3SS: Tensor, strengths: Strengths, fill: Colour) -> Tensor:
    host = [op_arguments.table(name, share) for name, share, _ in strengths]
    return _looked_up(pixels_n3SS, _on(np.array(host, np.uint8), pixels_n3SS)[:, None].expand(-1, 3, -1))


def _by_histogram(pixels_n3SS: Tensor, strengths: Strengths, fill: Colour) -> Tensor:
    counts_n3V = _histograms(pixels_n3SS)
    stretch_n = _on(np.array([name == "AutoContrast" for name, *_ in strengths]), pixels_n3SS)
    table_n3V = torch.where(stretch_n[:, None, None], _stretched(counts_n3V), _equalized(counts_n3V))
    return _looked_up(pixels_n3SS, table_n3V.to(torch.uint8))


def _blended_by_table(pixels_n3SS: Tensor, strengths: Strengths, fill: Colour) -> Tensor:
    """Contrast and brightness: all pixels of an image move away from one grey."""
    contrast_n = _on(np.array([name == "ContrastIncreasing" for name, *_ in strengths]), pixels_n3SS)
    total_n = _grey(pixels_n3SS).sum((1, 2), dtype=torch.int64).double()
    mean_n = (total_n / torch.full_like(total_n, pixels_n3SS[0, 0].numel()) + 0.5).to(torch.int32)
    grey_n1 = (mean_n * contrast_n)[:, None]
    values_V = torch.arange(256, dtype=torch.int32, device=pixels_n3SS.device)
    table_nV = _blend(grey_n1, values_V, _factors(strengths, pixels_n3SS)[:, None])
    return _looked_up(pixels_n3SS, table_nV[:, None].expand(-1, 3, -1))


def _coloured(pixels_n3SS: Tensor, strengths: Strengths, fill: Colour) -> Tensor:
    factor_n111 = _factors(strengths, pixels_n3SS)[:, None, None, None]
    return _blend(_grey(pixels_n3SS)[:, None], pixels_n3SS.to(torch.int32), factor_n111)


def _sharpened(pixels_n3SS: Tensor, strengths: Strengths, fill: Colour) -> Tensor:
    """The degenerate is smoothed by (1 1 1, 1 5 1, 1 1 1) / 13, except at the border; see `op_kernels`."""
    height, width = pixels_n3SS.shape[2:]
    if height < 3 or width < 3:
        return pixels_n3SS
    whole = pixels_n3SS.to(torch.int32)
    inside = whole[:, :, 1:-1, 1:-1]
    around = 4 * inside
    for down in range(3):
        for right in range(3):
            around = around + whole[:, :, down : down + height - 2, right : right + width - 2]
    smooth = torch.div(2 * around + 13, 26, rounding_mode="floor")
    sharpened = pixels_n3SS.clone()
    sharpened[:, :, 1:-1, 1:-1] = _blend(smooth, inside, _factors(strengths, pixels_n3SS)[:, None, None, None])
    return sharpened


def _moved(pixels_n3SS: Tensor, strengths: Strengths, fill: Colour) -> Tensor:
    """Affine maps with bicubic interpolation in fp64."""
    count, _, height, width = pixels_n3SS.shape
    host = [op_arguments.matrix(*strength, width=width, height=height) for strength in strengths]
    a, b, c, d, e, f = (column[:, None, None] for column in _on(np.array(host, np.float64), pixels_n3SS).unbind(1))
    x_W = torch.arange(width, dtype=torch.float64, device=pixels_n3SS.device) + 0.5
    y_H1 = torch.arange(height, dtype=torch.float64, device=pixels_n3SS.device)[:, None] + 0.5
    across, down = (a * x_W + b * y_H1) + c, (d * x_W + e * y_H1) + f
    covered_nHW = (across >= 0) & (across < width) & (down >= 0) & (down < height)
    left, top = (across - 0.5).floor(), (down - 0.5).floor()
    right_n1HW, below_n1HW = ((across - 0.5) - left)[:, None], ((down - 0.5) - top)[:, None]
    planes_n3P = pixels_n3SS.flatten(2)

    def taken(row: Tensor, column: Tensor) -> Tensor:
        at_nP = (row * width + column).to(torch.int64).flatten(1)
        found = planes_n3P.gather(2, at_nP[:, None].expand(-1, 3, -1))
        return found.view(count, 3, height, width).double()

    rows = [(top + step).clamp(0, height - 1) for step in (-1, 0, 1, 2)]
    columns = [(left + step).clamp(0, width - 1) for step in (-1, 0, 1, 2)]
    along = [_cubic([taken(row, column) for column in columns], right_n1HW) for row in rows]
    value = _cubic(along, below_n1HW).clamp(0, 255).to(torch.uint8)
    fill_311 = _on(np.array(fill, np.uint8), pixels_n3SS)[:, None, None]
    return torch.where(covered_nHW[:, None], value, fill_311)


_KINDS: tuple[tuple[frozenset[str], Callable[[Tensor, Strengths, Colour], Tensor]], ...] = (
    (TABLES, _by_table),
    (HISTOGRAMS, _by_histogram),
    (BLENDS - {"ColorIncreasing", "SharpnessIncreasing"}, _blended_by_table),
    (frozenset({"ColorIncreasing"}), _coloured),
    (frozenset({"SharpnessIncreasing"}), _sharpened),
    (GEOMETRY, _moved),
)


def _looked_up(pixels_n3SS: Tensor, table_n3V: Tensor) -> Tensor:
    return table_n3V.gather(2, pixels_n3SS.flatten(2).to(torch.int64)).view(pixels_n3SS.shape)


def _histograms(pixels_n3SS: Tensor) -> Tensor:
    """int64 [n, 3, 256], how often each value occurs."""
    values_n3P = pixels_n3SS.flatten(2).to(torch.int64)
    counts_n3V = torch.zeros((*values_n3P.shape[:2], 256), dtype=torch.int64, device=pixels_n3SS.device)
    return counts_n3V.scatter_add_(2, values_n3P, torch.ones_like(values_n3P))


def _stretched(counts_n3V: Tensor) -> Tensor:
    """AutoContrast's tables: the smallest value that occurs becomes 0, the largest 255."""
    values_V = torch.arange(256, device=counts_n3V.device)
    occurs = counts_n3V > 0
    low_n31 = torch.where(occurs, values_V, 255).amin(2, keepdim=True).double()
    high_n31 = torch.where(occurs, values_V, 0).amax(2, keepdim=True).double()
    spread = high_n31 > low_n31
    scale_n31 = torch.where(spread, torch.full_like(low_n31, 255) / (high_n31 - low_n31), 1.0)
    offset_n31 = torch.where(spread, -low_n31 * scale_n31, 0.0)
    return (values_V * scale_n31 + offset_n31).to(torch.int64).clamp(0, 255)


def _equalized(counts_n3V: Tensor) -> Tensor:
    """Equalize's tables: a new value is proportional to the number of pixels below the old one."""
    values_V = torch.arange(256, device=counts_n3V.device)
    occurs = counts_n3V > 0
    last_n31 = counts_n3V.gather(2, torch.where(occurs, values_V, 0).amax(2, keepdim=True))
    step_n31 = (counts_n3V.sum(2, keepdim=True) - last_n31) // 255
    below_n3V = counts_n3V.cumsum(2) - counts_n3V
    table_n3V = ((step_n31 // 2 + below_n3V) // step_n31.clamp(min=1)).clamp(max=255)
    as_it_is = (occurs.sum(2, keepdim=True) <= 1) | (step_n31 == 0)
    return torch.where(as_it_is, values_V, table_n3V)


def _grey(pixels_n3SS: Tensor) -> Tensor:
    """int32 [n, S, S], ITU-R 601-2 luma in 2^-16, as Pillow rounds it."""
    red, green, blue = pixels_n3SS.to(torch.int32).unbind(1)
    return (red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16


def _blend(degenerate: Tensor, value: Tensor, factor: Tensor) -> Tensor:
    """uint8 from int32: the degenerate and `factor`, fp32, times what leads from it to the value."""
    step = factor * (value - degenerate).to(torch.float32)
    return (degenerate.to(torch.float32) + step).clamp(0, 255).to(torch.uint8)


def _cubic(neighbours: list[Tensor], part: Tensor) -> Tensor:
    """Between the second and the third of four neighbours; see `op_kernels`."""
    v1, v2, v3, v4 = neighbours
    p2 = -v1 + v3
    p3 = 2 * (v1 - v2) + v3 - v4
    p4 = -v1 + v2 - v3 + v4
    return v2 + part * (p2 + part * (p3 + part * p4))


def _factors(strengths: Strengths, like: Tensor) -> Tensor:
    """fp32 [n], of blends."""
    return _on(np.array([op_arguments.enhancement(*strength[1:]) for strength in strengths], np.float32), like)


def _on(array: NDArray[np.generic], like: Tensor) -> Tensor:
    return torch.from_numpy(array).to(like.device, non_blocking=True)
