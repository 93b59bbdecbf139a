"""No teacher: the baseline for distillation."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from torch import Tensor

from cskd_pipeline.batch import MixedLabels, StudentOutput, Targets
from cskd_pipeline.losses import truth_of_all_heads
from cskd_pipeline.objectives.objective import Objective


@dataclasses.dataclass(frozen=True, slots=True)
class Supervised(Objective):
    """CE(z_cls, y); for a student with several heads the mean over z_cls, z_dist or z_cls, z_conv, z_inv."""

    name: ClassVar[str] = "supervised"
    primary_head: ClassVar[str] = "two_head"
    dense: ClassVar[bool] = False
    second_head: ClassVar[bool] = False

    @property
    def needs(self) -> frozenset[str]:
        """Empty: no teacher."""
        return frozenset()

    def ratio_steps(self, epoch: int, epochs: int) -> int:
        """Always 0: no targets are read."""
        return 0

    def __call__(self, output: StudentOutput, labels: MixedLabels, targets: Targets | None) -> Tensor:
        """The loss of every example, fp32 [B]."""
        return truth_of_all_heads(output, labels)
