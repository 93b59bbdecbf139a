"""Distillation from the teacher's global output: DeiT (Touvron et al., 2021, arXiv 2012.12877), eqs. 2 and 3."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import cross_entropy

from cskd_pipeline.losses.divergence import tempered_divergence


def hard_global(dist_BC: Tensor, classes_B: Tensor) -> Tensor:
    """CE(z_dist, argmax g) of every example, fp32 [B]; `classes_B` is int64."""
    return cross_entropy(dist_BC.float(), classes_B, reduction="none")


def soft_global(dist_BC: Tensor, global_BC: Tensor, *, temperature: float) -> Tensor:
    """T^2 * KL(softmax(g/T) || softmax(z_dist/T)) / C of every example, fp32 [B].

    The paper's equation has no divisor. Its code divides the sum over the batch by B*C, and the published results
    include that divisor.
    """
    return tempered_divergence(dist_BC, global_BC, temperature=temperature) / dist_BC.shape[1]
