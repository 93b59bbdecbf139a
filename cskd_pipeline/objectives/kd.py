"""Knowledge distillation (Hinton et al., arXiv 1503.02531) as FunMatch (arXiv 2106.05237) and VanillaKD use it."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from torch import Tensor

from cskd_pipeline.losses import standardised, tempered_divergence
from cskd_pipeline.objectives.logit import LogitObjective
from cskd_pipeline.record import require_flag, require_range


@dataclasses.dataclass(frozen=True, slots=True)
class Kd(LogitObjective):
    """(1 - alpha) CE(z_cls, y) + alpha T^2 KL(softmax(g/T) || softmax(z/T)), summed over classes.

    DeiT's soft loss (`deit` with mode soft) is the same but for a divisor of C.

    Attributes:
        alpha: weight of the distillation, in [0, 1]; 1 learns from the teacher alone (FunMatch).
        temperature: T.
        standardise: bring both sides' logits to mean 0 and standard deviation 1 over the classes first (arXiv
            2403.01427, which takes T = 2).
    """

    alpha: float = 0.5
    temperature: float = 1.0
    standardise: bool = False

    name: ClassVar[str] = "kd"

    def __post_init__(self) -> None:
        LogitObjective.__post_init__(self)
        require_range("objective alpha", self.alpha, low=0, high=1)
        require_range("objective temperature", self.temperature, above=0)
        require_flag("objective standardise", self.standardise)

    @property
    def truth_weight(self) -> float:
        """1 - alpha."""
        return 1 - self.alpha

    def distillation(self, student_BC: Tensor, teacher_BC: Tensor, labels_B: Tensor) -> Tensor:
        """alpha T^2 KL, fp32 [B]."""
        if self.standardise:
            student_BC, teacher_BC = standardised(student_BC), standardised(teacher_BC)
        return self.alpha * tempered_divergence(student_BC, teacher_BC, temperature=self.temperature)
