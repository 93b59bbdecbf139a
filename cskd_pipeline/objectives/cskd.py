"""CSKD with Cumulative Knowledge Fusion (Zhao, Song and Liang, ICCV 2023, arXiv 2307.08500)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import ClassVar

from torch import Tensor

from cskd_pipeline.batch import MixedLabels, StudentOutput, Targets
from cskd_pipeline.losses import dense_term, global_term, harden, require_targets, truth_term
from cskd_pipeline.objectives.objective import MODES, Objective
from cskd_pipeline.ratio import RATIO_STEPS
from cskd_pipeline.record import require_choice, require_range

SCHEDULES: Mapping[str, Callable[[float], float]] = MappingProxyType(
    {
        "linear": lambda x: 1 - x,
        "x2": lambda x: (1 - x) ** 2,
        "cos": lambda x: math.cos(math.pi * x / 2),
        # Constant at either end: the paper's ablations without fusion.
        "local": lambda x: 1.0,
        "global": lambda x: 0.0,
    }
)
"""The share r of local targets as a function of x = epoch / epochs in [0, 1)."""


@dataclasses.dataclass(frozen=True, slots=True)
class Cskd(Objective):
    """(1 - alpha) * CE(z_cls, y) + alpha * L_global + weight * L_dense.

    Attributes:
        mode: "hard" (the published one) or "soft", for both distillation terms.
        schedule: how the share of local targets falls (see `SCHEDULES`).
        alpha: weight of the global term, in [0, 1]; the true labels get 1 - alpha.
        weight: factor of the dense term.
        temperature: T of the soft losses; the hard losses ignore it.
    """

    mode: str = "hard"
    schedule: str = "linear"
    alpha: float = 0.5
    weight: float = 1.0
    temperature: float = 1.0

    name: ClassVar[str] = "cskd"
    primary_head: ClassVar[str] = "three_head"
    dense: ClassVar[bool] = True

    def __post_init__(self) -> None:
        require_choice("objective mode", self.mode, MODES)
        require_choice("objective schedule", self.schedule, SCHEDULES)
        require_range("objective alpha", self.alpha, low=0, high=1)
        require_range("objective weight", self.weight, low=0)
        require_range("objective temperature", self.temperature, above=0)

    @property
    def needs(self) -> frozenset[str]:
        """The mode's kind of targets."""
        return frozenset({self.mode})

    def ratio_steps(self, epoch: int, epochs: int) -> int:
        """The schedule's r * 65536; fp32 holds such an r, and 1 - r, exactly."""
        return round(SCHEDULES[self.schedule](epoch / epochs) * RATIO_STEPS)

    def __call__(self, output: StudentOutput, labels: MixedLabels, targets: Targets | None) -> Tensor:
        """The loss of every example, fp32 [B]."""
        targets = require_targets(targets)
        if self.mode == "hard":
            targets = harden(targets)  # once, for both terms
        global_B = global_term(output, targets, mode=self.mode, temperature=self.temperature)
        dense_B = dense_term(output, targets, mode=self.mode, temperature=self.temperature)
        return (1 - self.alpha) * truth_term(output, labels) + self.alpha * global_B + self.weight * dense_B
