"""DIST: correlation instead of divergence (Huang et al., NeurIPS 2022, arXiv 2205.10536)."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from torch import Tensor

from cskd_pipeline.losses import uncorrelated_batch, uncorrelated_classes
from cskd_pipeline.objectives.logit import LogitObjective
from cskd_pipeline.record import require_range


@dataclasses.dataclass(frozen=True, slots=True)
class Dist(LogitObjective):
    """CE(z_cls, y) + T^2 (beta (1 - r over the classes) + gamma (1 - r over the batch, mean over the classes)).

    r is Pearson's correlation of the softmaxes of z/T and g/T. The last term belongs to the batch: it is exact over
    several processes, and refuses accumulation.

    Attributes:
        beta: weight of the correlation over the classes of an example.
        gamma: weight of the correlation over the examples of a batch.
        temperature: T.
    """

    beta: float = 1.0
    gamma: float = 1.0
    temperature: float = 1.0

    name: ClassVar[str] = "dist"
    whole_batch: ClassVar[bool] = True

    def __post_init__(self) -> None:
        LogitObjective.__post_init__(self)
        require_range("objective beta", self.beta, low=0)
        require_range("objective gamma", self.gamma, low=0)
        require_range("objective temperature", self.temperature, above=0)

    def distillation(self, student_BC: Tensor, teacher_BC: Tensor, labels_B: Tensor) -> Tensor:
        """The first term of every example, and the second of the batch added to each, fp32 [B]."""
        classes_B = uncorrelated_classes(student_BC, teacher_BC, temperature=self.temperature)
        batch = uncorrelated_batch(student_BC, teacher_BC, temperature=self.temperature)
        return self.beta * classes_B + self.gamma * batch
