"""What an evaluation reports."""

from __future__ import annotations

import dataclasses

from cskd_pipeline.record import Record


@dataclasses.dataclass(frozen=True, slots=True)
class Score(Record):
    """Accuracy over a data set.

    Attributes:
        top1: per cent of images whose label is the best class.
        top5: per cent whose label is among the best five (all, where there are fewer classes).
        loss: mean cross-entropy in nats.
        count: number of images.
    """

    top1: float
    top5: float
    loss: float
    count: int
