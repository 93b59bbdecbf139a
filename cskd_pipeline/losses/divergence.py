"""The divergence that both soft distillation losses sum."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import kl_div


def tempered_divergence(student_BCX: Tensor, teacher_BCX: Tensor, *, temperature: float) -> Tensor:
    """T^2 * KL(softmax(teacher/T) || softmax(student/T)) over axis 1, fp32 [B, ...] without that axis.

    Teacher logits may be minus infinity: probability zero, which adds nothing.
    """
    log_student = (student_BCX.float() / temperature).log_softmax(1)
    teacher = (teacher_BCX.float() / temperature).softmax(1)
    return temperature**2 * kl_div(log_student, teacher, reduction="none").sum(1)
