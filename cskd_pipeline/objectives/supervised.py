"""No teacher: the baseline for distillation."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from torch import Tensor

from cskd_pipeline.batch import MixedLabels, StudentOutput, Targets
from cskd_pipeline.losses import soft_target_cross_entropy, truth_term
from cskd_pipeline.objectives.objective import Objective


@dataclasses.dataclass(frozen=True, slots=True)
class Supervised(Objective):
    """CE(z_cls, y); the mean of CE(z_cls, y) and CE(z_dist, y) for a student with two heads.

    Training both heads gives every parameter a gradient and makes the two-head accuracy meaningful.
    """

    name: ClassVar[str] = "supervised"
    primary_head: ClassVar[str] = "two_head"
    dense: ClassVar[bool] = False

    @property
    def needs(self) -> frozenset[str]:
        """Empty: no teacher."""
        return frozenset()

    def ratio_steps(self, epoch: int, epochs: int) -> int:
        """Always 0: no targets are read."""
        return 0

    def __call__(self, output: StudentOutput, labels: MixedLabels, targets: Targets | None) -> Tensor:
        """The loss of every example, fp32 [B]."""
        loss_B = truth_term(output, labels)
        if output.dist_BC is None:
            return loss_B
        probabilities_BC = labels.probabilities_BC(output.dist_BC.shape[1])
        return (loss_B + soft_target_cross_entropy(output.dist_BC, probabilities_BC)) / 2
