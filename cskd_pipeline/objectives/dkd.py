"""Decoupled Knowledge Distillation (Zhao et al., CVPR 2022, arXiv 2203.08679)."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from torch import Tensor

from cskd_pipeline.losses import decoupled
from cskd_pipeline.objectives.logit import LogitObjective
from cskd_pipeline.record import require_range


@dataclasses.dataclass(frozen=True, slots=True)
class Dkd(LogitObjective):
    """CE(z_cls, y) + T^2 (alpha KL(b_t || b_s) + beta KL(q_t || q_s)).

    b are the probabilities of the label y and of all other classes together, q those of the other classes among
    themselves, at temperature T; y is the heavier class of a mixed label. The defaults are the paper's for ImageNet.

    Attributes:
        alpha: weight of label against all others.
        beta: weight of the others among themselves.
        temperature: T.
    """

    alpha: float = 1.0
    beta: float = 0.5
    temperature: float = 1.0

    name: ClassVar[str] = "dkd"
    reads_truth: ClassVar[bool] = True

    def __post_init__(self) -> None:
        LogitObjective.__post_init__(self)
        require_range("objective alpha", self.alpha, low=0)
        require_range("objective beta", self.beta, low=0)
        require_range("objective temperature", self.temperature, above=0)

    def distillation(self, student_BC: Tensor, teacher_BC: Tensor, labels_B: Tensor) -> Tensor:
        """Both divergences, fp32 [B]."""
        return decoupled(
            student_BC, teacher_BC, labels_B, alpha=self.alpha, beta=self.beta, temperature=self.temperature
        )
