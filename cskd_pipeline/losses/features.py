"""Losses on a teacher's features: VkD's (arXiv 2403.06213) and ViTKD's (arXiv 2209.02432); fp32 [B]."""

from __future__ import annotations

import contextlib

import torch
from torch import Tensor
from torch.nn.functional import layer_norm, smooth_l1_loss

from cskd_pipeline.batch import TokenTargets


def normed_distance(projected_BD: Tensor, pooled_BD: Tensor) -> Tensor:
    """Smooth L1 distance to LN(f), the teacher's feature of mean 0 and variance 1, meaned over its entries."""
    normed_BD = layer_norm(pooled_BD.float(), pooled_BD.shape[1:])
    return smooth_l1_loss(projected_BD.float(), normed_BD, reduction="none").mean(1)


def at_positions(tokens_BND: Tensor, kept_Bn: Tensor) -> Tensor:
    """The tokens at these positions, [B, n, D]."""
    return tokens_BND.gather(1, kept_Bn[:, :, None].expand(-1, -1, tokens_BND.shape[2]))


def summed_distance(student_BnD: Tensor, teacher_BnD: Tensor, *, positions: float) -> Tensor:
    """Squares of the differences, summed over channels and `positions`, which those given are a fair sample of."""
    squares_B = (student_BnD.float() - teacher_BnD.float()).square().sum((1, 2))
    return squares_B * (positions / student_BnD.shape[1])


def draw_mask(kept_Bn: Tensor, *, positions: int, masked: int) -> tuple[Tensor, Tensor]:
    """A random mask of `masked` positions of each example, as little as possible where the teacher is not known.

    The mask holds all kept positions, or if they are more, kept ones alone. These are a random choice themselves, so it
    is one of all masks with equal chances, and those of its positions that are kept are a fair sample of it. Drawn from
    torch's generator, as dropout is.

    Returns:
        bool [B, positions], and int64 [B, m], m = min(n, masked), the positions that are masked and kept.
    """
    chance_BP = torch.rand(len(kept_Bn), positions, device=kept_Bn.device)
    first_BP = chance_BP.scatter_add(1, kept_Bn, torch.ones_like(kept_Bn, dtype=chance_BP.dtype))
    masked_Bm = first_BP.topk(masked, dim=1).indices  # kept ones come first
    mask_BP = torch.zeros_like(chance_BP, dtype=torch.bool).scatter(1, masked_Bm, True)
    return mask_BP, masked_Bm[:, : kept_Bn.shape[1]]


def known_tokens(tokens: TokenTargets, layer: int, positions_Bm: Tensor) -> Tensor:
    """The teacher's tokens of a layer at kept positions, [B, m, D]."""
    rank_BP = torch.zeros(len(positions_Bm), tokens.positions, dtype=torch.long, device=positions_Bm.device)
    places_Bn = torch.arange(tokens.kept_Bn.shape[1], device=positions_Bm.device).expand_as(tokens.kept_Bn)
    rank_BP = rank_BP.scatter(1, tokens.kept_Bn, places_Bn)
    return at_positions(tokens.values_BLnD[:, layer], rank_BP.gather(1, positions_Bm))


def as_precise_as(logits: Tensor) -> contextlib.AbstractContextManager[object]:
    """Have layers compute at the precision of the forward pass that gave these logits."""
    half = logits.dtype in (torch.bfloat16, torch.float16)
    return torch.autocast(logits.device.type, dtype=logits.dtype, enabled=half)
