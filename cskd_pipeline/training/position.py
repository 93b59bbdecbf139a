"""How far a run has come."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from typing import Any

from cskd_pipeline.batch import TrainBatch
from cskd_pipeline.training.summary import Best


@dataclasses.dataclass(slots=True)
class Position:
    """Position and running totals; part of every checkpoint.

    Attributes:
        epoch: finished epochs, which is the number of the epoch at work.
        updates_done: updates done in the epoch at work.
        loss_sum: summed loss over the epoch's crops, all ranks.
        crops: number of these crops.
        seconds: time spent training in the epoch.
        waited_s: of this, time this rank waited for data.
        best: the best evaluation so far.
    """

    epoch: int = 0
    updates_done: int = 0
    loss_sum: float = 0.0
    crops: int = 0
    seconds: float = 0.0
    waited_s: float = 0.0
    best: Best | None = None

    def next_epoch(self) -> None:
        """Begin the next epoch with empty totals."""
        self.epoch += 1
        self.updates_done = self.crops = 0
        self.loss_sum = self.seconds = self.waited_s = 0.0

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Position:
        """What `to_json` gave."""
        best = values["best"]
        return cls(**{**values, "best": None if best is None else Best.from_json(best)})


class TimedBatches:
    """An iterator that adds up how long its user waited."""

    def __init__(self, batches: Iterator[TrainBatch]) -> None:
        self._batches = batches
        self.waited_s = 0.0

    def __iter__(self) -> TimedBatches:
        return self

    def __next__(self) -> TrainBatch:
        began = time.monotonic()
        try:
            return next(self._batches)
        finally:
            self.waited_s += time.monotonic() - began

    def close(self) -> None:
        """End the iteration now, so that what produces the batches (workers, as a rule) ends too."""
        close = getattr(self._batches, "close", None)
        if close is not None:
            close()
