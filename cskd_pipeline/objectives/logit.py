"""What objectives on class logits have in common: any student will do, and soft global targets."""

from __future__ import annotations

import abc
import dataclasses
from typing import ClassVar

from torch import Tensor

from cskd_pipeline.batch import MixedLabels, StudentOutput, Targets
from cskd_pipeline.errors import MismatchError
from cskd_pipeline.losses import (
    global_logits,
    require_head,
    require_targets,
    truth_of_all_heads,
    truth_term,
    with_label_odds,
)
from cskd_pipeline.objectives.objective import Objective
from cskd_pipeline.record import require_choice

HEADS = ("auto", "cls", "dist")


@dataclasses.dataclass(frozen=True, slots=True)
class LogitObjective(Objective):
    """truth_weight * CE(z_cls, y) + the distillation of one head's logits z.

    Where z is z_cls and the student has a second head, that one learns y too, as with `supervised`.

    Attributes:
        head: the logits z: "dist" for z_dist, "cls" for z_cls; "auto" for z_dist of a student that has it.
    """

    head: str = "auto"

    primary_head: ClassVar[str] = "two_head"
    dense: ClassVar[bool] = False
    second_head: ClassVar[bool] = False
    reads_truth: ClassVar[bool] = False
    """Whether it reads the probabilities of the true classes, which soft targets may not name."""

    def __post_init__(self) -> None:
        require_choice("objective head", self.head, HEADS)

    @property
    def needs(self) -> frozenset[str]:
        """Soft targets, and where it reads them the probabilities of the true classes."""
        return frozenset({"soft", "truth"} if self.reads_truth else {"soft"})

    def ratio_steps(self, epoch: int, epochs: int) -> int:
        """Always 0: all global."""
        return 0

    @property
    def truth_weight(self) -> float:
        """The factor of the true labels' term."""
        return 1.0

    @abc.abstractmethod
    def distillation(self, student_BC: Tensor, teacher_BC: Tensor, labels_B: Tensor) -> Tensor:
        """The distillation of every example, or that of the batch, fp32 [B] or a scalar.

        Args:
            student_BC: z, in any floating dtype.
            teacher_BC: the teacher's global logits, or logarithms of its probabilities, fp32.
            labels_B: the heavier class of each mixed label, int64.
        """

    def __call__(self, output: StudentOutput, labels: MixedLabels, targets: Targets | None) -> Tensor:
        """The loss of every example, fp32 [B]."""
        targets = require_targets(targets)
        cls_BC = require_head(output, "cls_BC")  # also where only z_dist is distilled: an answer of the wrong kind
        on_dist = self.head == "dist" or (self.head == "auto" and output.dist_BC is not None)
        student_BC = require_head(output, "dist_BC") if on_dist else cls_BC
        truth_B = truth_term(output, labels) if on_dist else truth_of_all_heads(output, labels)
        teacher_BC, labels_B = global_logits(targets), labels.heavier_B
        if self.reads_truth:
            teacher_BC = _exact_for_labels(targets, teacher_BC, labels)
        return self.truth_weight * truth_B + self.distillation(student_BC, teacher_BC, labels_B)


def _exact_for_labels(targets: Targets, teacher_BC: Tensor, labels: MixedLabels) -> Tensor:
    """`teacher_BC` with the exact probability of each example's label."""
    if targets.logits_global_BC is not None:
        return teacher_BC
    if targets.label_odds_B2 is None:
        raise MismatchError(
            "the targets hold no probabilities of the true classes; take them from a loader made for this objective, "
            "of a store with targets `truth`"
        )
    first_B, second_B = targets.label_odds_B2.unbind(1)
    odds_B = first_B.where(labels.weight_B >= 0.5, second_B)
    return with_label_odds(teacher_BC, labels.heavier_B, odds_B)
