"""Normalized Knowledge Distillation (Yang et al., ICCV 2023, arXiv 2303.13005)."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from torch import Tensor

from cskd_pipeline.losses import normalized
from cskd_pipeline.objectives.logit import LogitObjective
from cskd_pipeline.record import require_range


@dataclasses.dataclass(frozen=True, slots=True)
class Nkd(LogitObjective):
    """CE(z_cls, y) - p_t[y] log p_s[y] - gamma T^2 sum_{c != y} q_t[c] log q_s[c].

    p are softmaxes of all logits, q those of the logits / T without the label y, the heavier class of a mixed label.

    Attributes:
        gamma: weight of the classes other than the label; the paper has 1 for DeiT students, 1.5 for CNNs.
        temperature: T.
    """

    gamma: float = 1.0
    temperature: float = 1.0

    name: ClassVar[str] = "nkd"
    reads_truth: ClassVar[bool] = True

    def __post_init__(self) -> None:
        LogitObjective.__post_init__(self)
        require_range("objective gamma", self.gamma, low=0)
        require_range("objective temperature", self.temperature, above=0)

    def distillation(self, student_BC: Tensor, teacher_BC: Tensor, labels_B: Tensor) -> Tensor:
        """Both terms of distillation, fp32 [B]."""
        return normalized(student_BC, teacher_BC, labels_B, gamma=self.gamma, temperature=self.temperature)
