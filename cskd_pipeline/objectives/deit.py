"""DeiT's distillation through a token (Touvron et al., ICML 2021, arXiv 2012.12877, section 4)."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from torch import Tensor

from cskd_pipeline.batch import MixedLabels, StudentOutput, Targets
from cskd_pipeline.losses import global_term, require_targets, truth_term
from cskd_pipeline.objectives.objective import MODES, Objective
from cskd_pipeline.record import require_choice, require_range


@dataclasses.dataclass(frozen=True, slots=True)
class Deit(Objective):
    """(1 - alpha) * CE(z_cls, y) + alpha * L, L the hard or soft loss of z_dist against the global output.

    Attributes:
        mode: "hard" (the published one) or "soft".
        alpha: weight of the distillation term, in [0, 1]; the true labels get 1 - alpha.
        temperature: T of the soft loss; the hard loss ignores it.
    """

    mode: str = "hard"
    alpha: float = 0.5
    temperature: float = 1.0

    name: ClassVar[str] = "deit"
    primary_head: ClassVar[str] = "two_head"
    dense: ClassVar[bool] = False

    def __post_init__(self) -> None:
        require_choice("objective mode", self.mode, MODES)
        require_range("objective alpha", self.alpha, low=0, high=1)
        require_range("objective temperature", self.temperature, above=0)

    @property
    def needs(self) -> frozenset[str]:
        """The mode's kind of targets."""
        return frozenset({self.mode})

    def ratio_steps(self, epoch: int, epochs: int) -> int:
        """Always 0: all global."""
        return 0

    def __call__(self, output: StudentOutput, labels: MixedLabels, targets: Targets | None) -> Tensor:
        """The loss of every example, fp32 [B]."""
        targets = require_targets(targets)
        global_B = global_term(output, targets, mode=self.mode, temperature=self.temperature)
        return (1 - self.alpha) * truth_term(output, labels) + self.alpha * global_B
