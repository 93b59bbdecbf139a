"""The contract of an objective: a loss over student output and targets, and what it needs of both."""

from __future__ import annotations

import abc
import dataclasses
from typing import ClassVar

from torch import Tensor

from cskd_pipeline.batch import MixedLabels, StudentOutput, Targets
from cskd_pipeline.errors import UsageError
from cskd_pipeline.record import Record

MODES = ("hard", "soft")


@dataclasses.dataclass(frozen=True, slots=True)
class Objective(Record, abc.ABC):
    """A loss with its settings. A new one is entered in `registry.OBJECTIVES`.

    Attributes:
        name: the method's name in its paper.
        primary_head: the way of combining heads that the paper's accuracy refers to (see `evaluation.heads`).
    """

    name: ClassVar[str]
    primary_head: ClassVar[str]

    @property
    @abc.abstractmethod
    def needs(self) -> frozenset[str]:
        """The kinds of targets it reads, of "hard" and "soft"; empty for a loss without a teacher."""

    @property
    @abc.abstractmethod
    def dense(self) -> bool:
        """Whether the loss reads the student's dense logits (and the targets' grid)."""

    @abc.abstractmethod
    def ratio_steps(self, epoch: int, epochs: int) -> int:
        """r * 65536 of the local targets' share in epoch `epoch` (from 0) of `epochs`."""

    def epoch_ratios(self, epochs: int) -> tuple[int, ...]:
        """`ratio_steps` of every epoch."""
        return tuple(self.ratio_steps(epoch, epochs) for epoch in range(epochs))

    @abc.abstractmethod
    def __call__(self, output: StudentOutput, labels: MixedLabels, targets: Targets | None) -> Tensor:
        """The loss of every example, fp32 [B]."""


def missing_targets(name: str) -> UsageError:
    """The error of an objective that was called without the targets that it needs."""
    return UsageError(f"objective {name} needs a teacher's targets, found none; give stored ones, or a live teacher's")
