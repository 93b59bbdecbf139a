"""Normalized Knowledge Distillation (NKD; Yang et al., ICCV 2023, arXiv 2303.13005, eq. 9)."""

from __future__ import annotations

import torch
from torch import Tensor

from cskd_pipeline.batch import SparseTargets
from cskd_pipeline.losses.palette import densify, global_on_palette


def normalized(student_BC: Tensor, teacher_BC: Tensor, labels_B: Tensor, *, gamma: float, temperature: float) -> Tensor:
    """-p_t[y] log p_s[y] - gamma T^2 sum_{c != y} q_t[c] log q_s[c] of every example, fp32 [B].

    p are softmaxes of the logits over all classes, q of the logits / T over the classes other than the label y.
    `student_BC` are logits in any floating dtype, `teacher_BC` logits or log-probabilities, `labels_B` (y) int64.
    The paper has gamma 1.5 and T 1.
    """
    y_B1 = labels_B[:, None]
    student_BC, teacher_BC = student_BC.float(), teacher_BC.float()
    target_B = teacher_BC.softmax(1).gather(1, y_B1)[:, 0] * student_BC.log_softmax(1).gather(1, y_B1)[:, 0]
    others_BC = (teacher_BC / temperature).scatter(1, y_B1, -torch.inf).softmax(1)
    log_others_BC = (student_BC / temperature).scatter(1, y_B1, -torch.inf).log_softmax(1)
    # The label's own share is 0 * -inf: its logarithm is set to 0, which passes no gradient.
    return -target_B - gamma * temperature**2 * (others_BC * log_others_BC.scatter(1, y_B1, 0.0)).sum(1)


def sparse_normalized(
    student_BC: Tensor, sparse: SparseTargets, labels_B: Tensor, *, gamma: float, temperature: float
) -> Tensor:
    """`normalized` against g of sparse targets, fp32 [B].

    g is written out as [B, C]: it is one distribution per example, as large as the student's own logits.
    """
    teacher_BC = densify(global_on_palette(sparse), classes=sparse.classes)[:, :, 0]
    return normalized(student_BC, teacher_BC, labels_B, gamma=gamma, temperature=temperature)
