"""Weighted Transformed Teacher Matching (Zheng and Yang, ICLR 2024, arXiv 2402.11148)."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from torch import Tensor

from cskd_pipeline.losses import transformed
from cskd_pipeline.objectives.logit import LogitObjective
from cskd_pipeline.record import require_range


@dataclasses.dataclass(frozen=True, slots=True)
class Wttm(LogitObjective):
    """CE(z_cls, y) + beta u KL(p_t^gamma / u || p_s), u = sum_c p_t[c]^gamma.

    Attributes:
        beta: weight of the distillation.
        gamma: power of the teacher's probabilities, the inverse of a temperature of the teacher alone.
    """

    beta: float = 1.0
    gamma: float = 0.5

    name: ClassVar[str] = "wttm"

    def __post_init__(self) -> None:
        LogitObjective.__post_init__(self)
        require_range("objective beta", self.beta, low=0)
        require_range("objective gamma", self.gamma, above=0)

    def distillation(self, student_BC: Tensor, teacher_BC: Tensor, labels_B: Tensor) -> Tensor:
        """beta u KL, fp32 [B]."""
        return self.beta * transformed(student_BC, teacher_BC, gamma=self.gamma)
