"""The result of an evaluation."""

from __future__ import annotations

import dataclasses

from cskd_pipeline.record import Record


@dataclasses.dataclass(frozen=True, slots=True)
class Score(Record):
    """Accuracy over a data set.

    Attributes:
        top1: percentage of images whose label is the top class.
        top5: percentage whose label is among the top five (or all classes, if there are fewer).
        loss: mean cross-entropy in nats.
        count: number of images.
    """

    top1: float
    top5: float
    loss: float
    count: int
