"""What it takes to build the same student again."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from cskd_pipeline.record import Record, require_range


@dataclasses.dataclass(frozen=True, slots=True)
class StudentSpec(Record):
    """A student's architecture.

    Attributes:
        model: timm's model name, aliases resolved.
        classes: number of classes.
        grid: (H, W) of the dense logits, or None for a student without them.
        args: further keyword arguments of timm.create_model.
        drop_path: stochastic depth rate, in [0, 1).
        distillation: whether a plain ViT is given a second head.
    """

    model: str
    classes: int
    grid: tuple[int, int] | None = None
    args: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    drop_path: float = 0.0
    distillation: bool = False

    def __post_init__(self) -> None:
        require_range("the number of classes", self.classes, low=2)
        require_range("drop path", self.drop_path, low=0, high=0.99)
        for side in self.grid or ():
            require_range("a side of the grid", side, low=1)
