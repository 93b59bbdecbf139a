"""Where training meets its data: replayed crops with stored targets, or a live teacher, or a test's tensors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from cskd_pipeline.batch import TrainBatch


class EpochSource(Protocol):
    """Micro-batches of one rank, a pure function of (epoch, position)."""

    @property
    def batches_per_epoch(self) -> int:
        """Micro-batches of this rank in an epoch: the same number on every rank and in every epoch."""

    def batches(self, epoch: int, *, start: int = 0) -> Iterator[TrainBatch]:
        """The micro-batches `start`, `start + 1`, ... of `epoch`, on the device of the model.

        Args:
            epoch: from 0.
            start: micro-batches to leave out, so that a resumed epoch goes on where it stopped.
        """
