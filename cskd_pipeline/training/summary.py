"""What a training run reports at its end."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from cskd_pipeline.evaluation import Score
from cskd_pipeline.record import Record


@dataclasses.dataclass(frozen=True, slots=True)
class Best(Record):
    """The best evaluation so far.

    Attributes:
        top1: per cent.
        epoch: finished epochs at that time.
        weights: "model" or "ema".
        head: how the heads were combined.
    """

    top1: float
    epoch: int
    weights: str
    head: str


@dataclasses.dataclass(frozen=True, slots=True)
class TrainSummary(Record):
    """The state of a run.

    Attributes:
        folder: the run folder.
        epochs: finished epochs.
        updates: updates done.
        best: the best evaluation, None where nothing was evaluated.
        already_finished: the run was complete before, and nothing was done.
    """

    folder: str
    epochs: int
    updates: int
    best: Best | None
    already_finished: bool = False


def improved(best: Best | None, scores: Mapping[str, Mapping[str, Score]], *, head: str, epoch: int) -> Best | None:
    """The new best if these scores hold one, else None; of equals the earlier stays.

    Args:
        best: the best so far.
        scores: by weights, then by head.
        head: the objective's primary head; class logits where the student has not got it.
        epoch: finished epochs.
    """
    candidates = []
    for weights, by_head in scores.items():
        used = head if head in by_head else "cls"
        candidates.append(Best(top1=by_head[used].top1, epoch=epoch, weights=weights, head=used))
    leader = max(candidates, key=lambda candidate: candidate.top1, default=None)
    if leader is None or (best is not None and leader.top1 <= best.top1):
        return None
    return leader
