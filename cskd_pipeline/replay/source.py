"""Epochs of training batches: replayed crops, finished for the student, with their targets."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Protocol

import torch

from cskd_pipeline.batch import Targets, TrainBatch
from cskd_pipeline.crops.batch import CropBatch
from cskd_pipeline.crops.finish import Channels
from cskd_pipeline.errors import UsageError
from cskd_pipeline.loading.loader import CropLoader
from cskd_pipeline.loading.order import Batch, EpochOrder
from cskd_pipeline.runtime.ahead import ahead


class TargetProvider(Protocol):
    """Where the targets of a batch come from."""

    def prepare(self, seeds: list[int], *, ratio_steps: int, upcoming: tuple[list[int], int] | None = None) -> None:
        """Get ready for an epoch that shows these seeds at this ratio; `upcoming` are those of the epoch after it."""

    def targets(self, batch: CropBatch, *, ratio_steps: int, device: torch.device) -> Targets | None:
        """The targets of a batch on `device`."""

    def close(self) -> None:
        """Release everything; nothing is asked for any more."""


class NoTargets:
    """For objectives that need no teacher."""

    def prepare(self, seeds: list[int], *, ratio_steps: int, upcoming: tuple[list[int], int] | None = None) -> None:
        """Nothing to prepare."""

    def targets(self, batch: CropBatch, *, ratio_steps: int, device: torch.device) -> None:
        """No targets."""

    def close(self) -> None:
        """Nothing to release."""


@dataclasses.dataclass(frozen=True, slots=True)
class ReplaySource:
    """One rank's micro-batches.

    A global batch is split evenly over ranks and accumulation steps, so that the same crops make up an update
    whatever the number of processes.

    Attributes:
        order: which crops, in global batches.
        loader: makes them.
        provider: knows their targets.
        mean, std: the student's input normalisation, per channel in 0..1.
        device: the student's.
        rank, world: this process and the number of all.
        accumulation: micro-batches per update.
        ahead: micro-batches to finish in a thread while others are trained on: worth it where the device is no CPU.

    Raises:
        UsageError: the global batch cannot be split evenly with partners kept together.
    """

    order: EpochOrder
    loader: CropLoader
    provider: TargetProvider
    mean: Channels
    std: Channels
    device: torch.device
    rank: int = 0
    world: int = 1
    accumulation: int = 1
    ahead: int = 0

    def __post_init__(self) -> None:
        pair = 2 if self.order.recipe.mixes else 1
        if self.order.batch % (self.world * self.accumulation * pair):
            raise UsageError(
                f"a batch of {self.order.batch} cannot be split over {self.world} processes x {self.accumulation} "
                f"accumulation steps with mix partners kept together; use a multiple of "
                f"{self.world * self.accumulation * pair}"
            )

    @property
    def batches_per_epoch(self) -> int:
        """Micro-batches of this rank in an epoch."""
        return self.order.batches * self.accumulation

    def batches(
        self, epoch: int, *, start: int, ratio_steps: int, next_ratio_steps: int | None = None
    ) -> Iterator[TrainBatch]:
        """The epoch's micro-batches from `start` on; an epoch at `next_ratio_steps` follows, or none."""
        upcoming = None if next_ratio_steps is None else (list(self.order.epoch_seeds(epoch + 1)), next_ratio_steps)
        self.provider.prepare(list(self.order.epoch_seeds(epoch)), ratio_steps=ratio_steps, upcoming=upcoming)
        batches = self._finished(self.loader.load(self._micro_batches(epoch, start)), ratio_steps)
        yield from ahead(batches, depth=self.ahead, device=self.device) if self.ahead else batches

    def _finished(self, loaded: Iterator[CropBatch], ratio_steps: int) -> Iterator[TrainBatch]:
        recipe = self.order.recipe
        for rendered in loaded:
            batch = rendered.on(self.device, recipe)
            yield TrainBatch(
                pixels_B3SS=batch.pixels(recipe, mean=self.mean, std=self.std, device=self.device),
                labels=batch.labels(recipe, device=self.device),
                targets=self.provider.targets(batch, ratio_steps=ratio_steps, device=self.device),
            )

    def _micro_batches(self, epoch: int, start: int) -> Iterator[Batch]:
        crops = self.order.crops(epoch)
        micro = self.order.batch // (self.world * self.accumulation)
        for number in range(start, self.batches_per_epoch):
            update, step = divmod(number, self.accumulation)
            first = update * self.order.batch + (self.rank * self.accumulation + step) * micro
            yield crops.part(first, first + micro)
