"""Distillation from fused dense targets: CSKD (Zhao, Song and Liang, ICCV 2023, arXiv 2307.08500)."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import cross_entropy

from cskd_pipeline.losses.divergence import tempered_divergence


def hard_dense(dense_BCHW: Tensor, classes_BHW: Tensor) -> Tensor:
    """CE(z_patch, argmax_c t) averaged over the grid, fp32 [B]; `classes_BHW` is int64."""
    return cross_entropy(dense_BCHW.float(), classes_BHW, reduction="none").mean((1, 2))


def soft_dense(dense_BCHW: Tensor, fused_BCHW: Tensor, *, temperature: float) -> Tensor:
    """T^2 * KL(softmax(t/T) || softmax(z_patch/T)) SUMMED over the grid, fp32 [B].

    The official code divides the sum by B alone, so this term weighs H*W times its mean over positions.
    """
    return tempered_divergence(dense_BCHW, fused_BCHW, temperature=temperature).sum((1, 2))
