"""How far a training run has come, and what it reports at its end."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from cskd_pipeline.evaluation import Score
from cskd_pipeline.record import Record


@dataclasses.dataclass(frozen=True, slots=True)
class Best(Record):
    """The best evaluation so far: top-1 in per cent, after `epoch` epochs, of "model" or "ema" weights and `head`."""

    top1: float
    epoch: int
    weights: str
    head: str


@dataclasses.dataclass(frozen=True, slots=True)
class TrainSummary(Record):
    """The state of a run.

    Attributes:
        epochs, updates: finished ones.
        best: the best evaluation, None where nothing was evaluated.
        already_finished: the run was complete before, and nothing was done.
    """

    folder: str
    epochs: int
    updates: int
    best: Best | None
    already_finished: bool = False


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


def improved(best: Best | None, scores: Mapping[str, Mapping[str, Score]], *, head: str, epoch: int) -> Best | None:
    """The new best if these scores (by weights, then by head) hold one, else None; of equals the earlier stays.

    `head` is the objective's primary head; where the student has not got it, the mean of a CivT's heads stands in, or
    class logits.
    """
    candidates = []
    for weights, by_head in scores.items():
        used = next(name for name in (head, "civt_head", "cls") if name in by_head)
        candidates.append(Best(top1=by_head[used].top1, epoch=epoch, weights=weights, head=used))
    leader = max(candidates, key=lambda candidate: candidate.top1, default=None)
    if leader is None or (best is not None and leader.top1 <= best.top1):
        return None
    return leader
