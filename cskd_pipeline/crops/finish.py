"""Erases, mixes and normalises a batch of rendered crops on the model's device, to the same bits on every device.

Every operation is a separate elementwise fp32 operation, which IEEE 754 rounds exactly. None may be fused: a fused
multiply-add rounds once where these round twice. On a CPU the operations are compiled (`finish_kernels`).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cskd_pipeline.crops import finish_kernels
from cskd_pipeline.crops.draws import Draws
from cskd_pipeline.crops.finish_kernels import DOMAIN_NOISE
from cskd_pipeline.crops.mixing import LAM_ONE, Mix
from cskd_pipeline.crops.philox import philox4x32
from cskd_pipeline.crops.quantiles import NORMAL_BITS, NORMAL_ONE, normal_table
from cskd_pipeline.crops.recipe import CropRecipe
from cskd_pipeline.runtime.memory import ReusedMemory

_VALUES_PER_BLOCK = 8

Channels = tuple[float, float, float]
Box = tuple[int, int, int, Tensor]
"""Row of the batch, top, left, and fp32 [3, h, w]."""


@torch.no_grad()
def finish(
    crops_B3SS: Tensor,
    draws_B: Draws,
    partner_rows_B: NDArray[np.int64],
    recipe: CropRecipe,
    *,
    mean: Channels,
    std: Channels,
    memory: ReusedMemory | None = None,
) -> Tensor:
    """fp32 [B, 3, S, S], the model's input: erased, mixed with the (erased) partner, normalised.

    Args:
        crops_B3SS: uint8 [B, 3, S, S] on any device, see `render`.
        draws_B: `CROP_DRAW` [B].
        partner_rows_B: int64 [B], the row of each crop's partner in the batch, see `labels.partner_rows`.
        recipe: the recipe that made the draws; its mean and std are those of the noise.
        mean: the model's, per channel in 0..1.
        std: the model's, per channel in 0..1.
        memory: provides the memory of the result on a CPU.
    """
    offset_C11 = _per_channel(mean, crops_B3SS.device)
    scale_C11 = torch.tensor([1 / (255 * s) for s in std], dtype=torch.float32, device=crops_B3SS.device)[:, None, None]
    if crops_B3SS.device.type != "cpu":
        return _by_torch(crops_B3SS, draws_B, partner_rows_B, recipe, offset_C11, scale_C11)
    finished_B3SS = (memory or ReusedMemory()).empty(tuple(crops_B3SS.shape), torch.float32)
    _compiled(crops_B3SS, draws_B, partner_rows_B, recipe, offset_C11, scale_C11, out=finished_B3SS)
    return finished_B3SS


def _by_torch(
    crops_B3SS: Tensor,
    draws_B: Draws,
    partner_rows_B: NDArray[np.int64],
    recipe: CropRecipe,
    offset_C11: Tensor,
    scale_C11: Tensor,
) -> Tensor:
    """`finish` by torch, on any device."""
    pixels_B3SS = crops_B3SS.to(torch.float32)
    for row, top, left, box_3hw in _erased_boxes(draws_B, recipe, crops_B3SS.device):
        pixels_B3SS[row, :, top : top + box_3hw.shape[1], left : left + box_3hw.shape[2]] = box_3hw
    _mix(pixels_B3SS, draws_B, partner_rows_B)
    return pixels_B3SS.sub_(offset_C11).mul_(scale_C11)


def _compiled(
    crops_B3SS: Tensor,
    draws_B: Draws,
    partner_rows_B: NDArray[np.int64],
    recipe: CropRecipe,
    offset_C11: Tensor,
    scale_C11: Tensor,
    *,
    out: Tensor,
) -> None:
    """Fill `out` with the bits of `_by_torch`, several times faster, on a CPU."""
    cut_B4 = np.stack([draws_B[f"cut_{edge}"] for edge in ("top", "left", "bottom", "right")], 1).astype(np.int64)
    erase_B4 = np.stack([draws_B[f"erase_{edge}"] for edge in ("top", "left", "height", "width")], 1).astype(np.int64)
    values_B = 3 * erase_B4[:, 2] * erase_B4[:, 3]
    noise_at_B = np.cumsum(values_B) - values_B
    noise_N = np.empty(values_B.sum(), np.float32)
    finish_kernels.fill_noise(
        draws_B["noise"].copy(),
        noise_at_B,
        values_B,
        (normal_table() / NORMAL_ONE).astype(np.float32),
        _per_channel(recipe.mean, crops_B3SS.device).flatten().numpy(),
        _per_channel(recipe.std, crops_B3SS.device).flatten().numpy(),
        noise_N,
    )
    lam_B = draws_B["lam"].astype(np.float32) / np.float32(LAM_ONE)
    finish_kernels.finish(
        crops_B3SS.contiguous().numpy(),
        partner_rows_B,
        np.ascontiguousarray(draws_B["mix"]),
        lam_B,
        cut_B4,
        erase_B4,
        noise_N,
        noise_at_B,
        offset_C11.flatten().numpy(),
        scale_C11.flatten().numpy(),
        out.numpy(),
    )


def _erased_boxes(draws_B: Draws, recipe: CropRecipe, device: torch.device) -> Iterator[Box]:
    """The contents of erased boxes: 255 * (mean + std * z), z normal. Values are not clipped."""
    erased = np.flatnonzero((draws_B["erase_height"] > 0) & (draws_B["erase_width"] > 0))
    if not len(erased):
        return
    values = 3 * draws_B["erase_height"][erased].astype(np.int64) * draws_B["erase_width"][erased]
    blocks = -(-values // _VALUES_PER_BLOCK)
    noise_N8 = _noise(draws_B["noise"][erased], blocks, device)
    offset_C11, scale_C11 = _per_channel(recipe.mean, device), _per_channel(recipe.std, device)
    start = 0
    for row, count in zip(erased.tolist(), blocks.tolist(), strict=True):
        top, left, h, w = (int(draws_B[f"erase_{edge}"][row]) for edge in ("top", "left", "height", "width"))
        box_3hw = noise_N8[start : start + count].reshape(-1)[: 3 * h * w].view(3, h, w)
        yield row, top, left, box_3hw.mul(scale_C11).add(offset_C11)
        start += count


def _noise(names_b: NDArray[np.uint64], blocks_b: NDArray[np.int64], device: torch.device) -> Tensor:
    """fp32 [sum(blocks_b), 8], N(0, 1): `blocks_b[i]` Philox blocks of eight values for box i, in order."""
    total = int(blocks_b.sum())
    repeats_b = torch.tensor(blocks_b, device=device)
    halves_b = np.stack([names_b & np.uint64(0xFFFFFFFF), names_b >> np.uint64(32)]).astype(np.int64)
    low_N, high_N = (
        words_b.to(device).repeat_interleave(repeats_b, output_size=total) for words_b in torch.tensor(halves_b)
    )
    starts_b = np.cumsum(blocks_b) - blocks_b
    starts_N = torch.tensor(starts_b, device=device).repeat_interleave(repeats_b, output_size=total)
    block_N = torch.arange(total, device=device) - starts_N
    domain_N = torch.full_like(block_N, DOMAIN_NOISE << 16)
    words_N4 = torch.stack(philox4x32((low_N, high_N, domain_N, block_N), (0, 0)), 1)
    halves_N8 = torch.stack([words_N4 & 0xFFFF, words_N4 >> 16], 2).reshape(total, _VALUES_PER_BLOCK)
    table = torch.tensor(normal_table() / NORMAL_ONE, dtype=torch.float32, device=device)
    return table[halves_N8 >> (16 - NORMAL_BITS)]


def _mix(pixels_B3SS: Tensor, draws_B: Draws, partner_rows_B: NDArray[np.int64]) -> None:
    """One kind after the other: partners are mixed alike, so no kind reads rows that the other writes."""
    for kind, combine in ((Mix.MIXUP, _blend), (Mix.CUTMIX, _paste)):
        rows = np.flatnonzero(draws_B["mix"] == kind)
        own_m = torch.tensor(rows, device=pixels_B3SS.device)
        partner_m = torch.tensor(partner_rows_B[rows], device=pixels_B3SS.device)
        pixels_B3SS[own_m] = combine(pixels_B3SS[own_m], pixels_B3SS[partner_m], draws_B[rows])


def _blend(own_m3SS: Tensor, partner_m3SS: Tensor, draws_m: Draws) -> Tensor:
    """Mixup; overwrites its arguments."""
    lam_m = draws_m["lam"].astype(np.float32) / np.float32(LAM_ONE)
    lam_m111 = torch.tensor(lam_m, device=own_m3SS.device)[:, None, None, None]
    return own_m3SS.mul_(lam_m111).add_(partner_m3SS.mul_(1 - lam_m111))


def _paste(own_m3SS: Tensor, partner_m3SS: Tensor, draws_m: Draws) -> Tensor:
    """CutMix: the partner's pixels inside the box."""
    top, left, bottom, right = (
        torch.tensor(draws_m[f"cut_{edge}"].astype(np.int64), device=own_m3SS.device)[:, None]
        for edge in ("top", "left", "bottom", "right")
    )
    place_S = torch.arange(own_m3SS.shape[-1], device=own_m3SS.device)
    rows_mS, columns_mS = (place_S >= top) & (place_S < bottom), (place_S >= left) & (place_S < right)
    inside_m1SS = (rows_mS[:, :, None] & columns_mS[:, None, :])[:, None]
    return torch.where(inside_m1SS, partner_m3SS, own_m3SS)


def _per_channel(values: Channels, device: torch.device) -> Tensor:
    """fp32 [3, 1, 1], 0..1 -> 0..255."""
    return torch.tensor([255 * value for value in values], dtype=torch.float32, device=device)[:, None, None]
