"""The contract of an objective: a loss over student output and targets, and what it needs of both."""

from __future__ import annotations

import abc
import dataclasses
from typing import Any, ClassVar

from torch import Tensor, nn

from cskd_pipeline.batch import FeatureShape, MixedLabels, StudentOutput, Targets
from cskd_pipeline.errors import UsageError
from cskd_pipeline.record import Record

MODES = ("hard", "soft")


@dataclasses.dataclass(frozen=True, slots=True)
class Objective(Record, abc.ABC):
    """A loss with its settings. A new one is entered in `OBJECTIVES`.

    Attributes:
        name: the method's name in its paper.
        primary_head: the way of combining heads that the paper's accuracy refers to (see `evaluation.HEADS`).
        dense: whether the loss reads the student's dense logits (and the targets' grid).
        second_head: whether a vision transformer without a distillation token is given a second head for it.
        teachers: how many teachers it learns from, each with labels of its own.
        layers: the student's blocks whose patch tokens it reads; -1 stands for the last one, after the final norm, or
            for the last feature map.
        whole_batch: whether a term belongs to the batch of an update, which then cannot be accumulated in parts.
    """

    name: ClassVar[str]
    primary_head: ClassVar[str]
    dense: ClassVar[bool]
    second_head: ClassVar[bool] = True
    teachers: ClassVar[int] = 1
    whole_batch: ClassVar[bool] = False
    layers: ClassVar[tuple[int, ...]] = ()

    @property
    @abc.abstractmethod
    def needs(self) -> frozenset[str]:
        """The kinds of targets it reads, of those that encodings give (`labels.Encoding`); empty without a teacher."""

    @abc.abstractmethod
    def ratio_steps(self, epoch: int, epochs: int) -> int:
        """r * 65536 of the local targets' share in epoch `epoch` (from 0) of `epochs`."""

    def adapter(self, student: tuple[int, int], teacher: FeatureShape) -> nn.Module | None:
        """Layers of its own between student and teacher, None if it has none.

        They are optimised with the student and kept in its checkpoints, as `student.adapter`, and are no part of an
        exported model. Such an objective is called with them as a fourth argument.

        Args:
            student: number and width of the student's patch tokens.
            teacher: the features that there are.

        Raises:
            MismatchError: these features are not what it reads.
        """
        return None

    @abc.abstractmethod
    def __call__(self, output: StudentOutput, labels: MixedLabels, targets: Targets | None) -> Tensor:
        """The loss of every example, fp32 [B]."""


def require_objective(value: Any) -> None:
    """Raise UsageError unless loaders and students can ask `value` what it needs, as they do an `Objective`."""
    if isinstance(value, str | type):
        name = value if isinstance(value, str) else value.__name__
        raise UsageError(f"the objective must be an object, found {name!r}; make it with cskd.objective(NAME)")
    lacking = [name for name in ("needs", "dense", "ratio_steps") if not hasattr(value, name)]
    if lacking:
        raise UsageError(
            f"{type(value).__name__} is no objective, for it has no {' and no '.join(lacking)}; make one with "
            "cskd.objective(NAME), or subclass cskd_pipeline.objectives.Objective"
        )
