"""Losses against class labels and against a teacher's global and fused dense targets.

DeiT (Touvron et al., 2021, arXiv 2012.12877), eqs. 2 and 3, and CSKD (Zhao, Song and Liang, ICCV 2023, arXiv
2307.08500). Student logits may have any floating dtype; classes are int64; all results are fp32 [B].
"""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import cross_entropy, kl_div


def soft_target_cross_entropy(logits_BC: Tensor, probabilities_BC: Tensor) -> Tensor:
    """-sum_c p[c] log softmax(z)[c], with fp32 target probabilities whose rows sum to one (mixed, smoothed labels)."""
    return -(probabilities_BC * logits_BC.float().log_softmax(1)).sum(1)


def hard_global(dist_BC: Tensor, classes_B: Tensor) -> Tensor:
    """CE(z_dist, argmax g)."""
    return cross_entropy(dist_BC.float(), classes_B, reduction="none")


def soft_global(dist_BC: Tensor, global_BC: Tensor, *, temperature: float) -> Tensor:
    """T^2 * KL(softmax(g/T) || softmax(z_dist/T)) / C.

    The paper's equation has no divisor. Its code divides the sum over the batch by B*C, and the published results
    include that divisor.
    """
    return tempered_divergence(dist_BC, global_BC, temperature=temperature) / dist_BC.shape[1]


def hard_dense(dense_BCHW: Tensor, classes_BHW: Tensor) -> Tensor:
    """CE(z_patch, argmax_c t) averaged over the grid."""
    return cross_entropy(dense_BCHW.float(), classes_BHW, reduction="none").mean((1, 2))


def soft_dense(dense_BCHW: Tensor, fused_BCHW: Tensor, *, temperature: float) -> Tensor:
    """T^2 * KL(softmax(t/T) || softmax(z_patch/T)) SUMMED over the grid.

    The official code divides the sum by B alone, so this term weighs H*W times its mean over positions.
    """
    return tempered_divergence(dense_BCHW, fused_BCHW, temperature=temperature).sum((1, 2))


def tempered_divergence(student_BCX: Tensor, teacher_BCX: Tensor, *, temperature: float) -> Tensor:
    """T^2 * KL(softmax(teacher/T) || softmax(student/T)), summed over axis 1, fp32 [B, ...] without that axis.

    Knowledge distillation as Hinton et al. have it (arXiv 1503.02531).

    Teacher logits may be minus infinity: probability zero, which adds nothing.
    """
    log_student = (student_BCX.float() / temperature).log_softmax(1)
    teacher = (teacher_BCX.float() / temperature).softmax(1)
    return temperature**2 * kl_div(log_student, teacher, reduction="none").sum(1)
