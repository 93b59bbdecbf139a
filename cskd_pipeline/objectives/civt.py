"""Co-advise: two teachers of different inductive bias (Ren et al., CVPR 2022, arXiv 2106.12378)."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from torch import Tensor

from cskd_pipeline.batch import MixedLabels, StudentOutput, Targets
from cskd_pipeline.errors import MismatchError
from cskd_pipeline.losses import global_logits, require_head, require_targets, tempered_divergence, truth_term
from cskd_pipeline.objectives.objective import Objective
from cskd_pipeline.record import require_range


@dataclasses.dataclass(frozen=True, slots=True)
class Civt(Objective):
    """CE(z_cls, y) + T^2 KL(p_conv || z_conv) + T^2 KL(p_inv || z_inv), summed over classes.

    The first teacher is a CNN, the second an involution network; the student (`civt_ti`, `civt_s`, `civt_b`) has a head
    for each.

    Attributes:
        temperature: T, 1 in the paper.
    """

    temperature: float = 1.0

    name: ClassVar[str] = "civt"
    primary_head: ClassVar[str] = "civt_head"
    dense: ClassVar[bool] = False
    second_head: ClassVar[bool] = False
    teachers: ClassVar[int] = 2

    def __post_init__(self) -> None:
        require_range("objective temperature", self.temperature, above=0)

    @property
    def needs(self) -> frozenset[str]:
        """Soft targets, of both teachers."""
        return frozenset({"soft"})

    def ratio_steps(self, epoch: int, epochs: int) -> int:
        """Always 0: all global."""
        return 0

    def __call__(self, output: StudentOutput, labels: MixedLabels, targets: Targets | None) -> Tensor:
        """The loss of every example, fp32 [B]."""
        first = require_targets(targets)
        if first.second is None:
            raise MismatchError(
                "the objective reads two teachers' targets, found one's; take them from a loader made for this "
                "objective, of two label stores"
            )
        loss_B = truth_term(output, labels)
        for head, said in (("conv_BC", first), ("inv_BC", first.second)):
            student_BC, teacher_BC = require_head(output, head), global_logits(said)
            loss_B = loss_B + tempered_divergence(student_BC, teacher_BC, temperature=self.temperature)
        return loss_B
