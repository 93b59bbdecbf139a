"""Schedules of Cumulative Knowledge Fusion: the share r of local targets over time (arXiv 2307.08500)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

from cskd_pipeline.ratio import RATIO_STEPS

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
"""r as a function of x = epoch / epochs in [0, 1)."""


def ratio_steps(schedule: str, *, epoch: int, epochs: int) -> int:
    """r in steps of 1/65536; fp32 holds such an r, and 1 - r, exactly."""
    return round(SCHEDULES[schedule](epoch / epochs) * RATIO_STEPS)
