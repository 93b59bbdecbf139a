"""Epochs of training batches: replayed crops, finished for the student, with their targets."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Protocol

import torch

from cskd_pipeline.batch import Targets, TrainBatch
from cskd_pipeline.crops.batch import CropBatch
from cskd_pipeline.crops.finish import Channels
from cskd_pipeline.crops.recipe import CropRecipe
from cskd_pipeline.data import SampleIndex
from cskd_pipeline.errors import MismatchError, UsageError
from cskd_pipeline.loading.loader import CropLoader
from cskd_pipeline.loading.order import Batch, EpochOrder
from cskd_pipeline.ratio import require_ratio_steps
from cskd_pipeline.runtime.ahead import ahead


class TargetProvider(Protocol):
    """Where the targets of a batch come from."""

    def require(self, index: SampleIndex, recipe: CropRecipe, seeds: Sequence[int]) -> None:
        """Raise MismatchError unless it has targets for the crops of these seeds over these images."""

    def prepare(self, seeds: list[int], *, ratio_steps: int, upcoming: tuple[list[int], int] | None = None) -> None:
        """Get ready for an epoch that shows these seeds at this ratio; `upcoming` are those of the epoch after it."""

    def targets(self, batch: CropBatch, *, device: torch.device) -> Targets | None:
        """The targets of a batch of the prepared epoch on `device`."""

    def close(self) -> None:
        """Release everything; nothing is asked for any more."""


class NoTargets:
    """For objectives that need no teacher."""

    def require(self, index: SampleIndex, recipe: CropRecipe, seeds: Sequence[int]) -> None:
        """Any crops will do."""

    def prepare(self, seeds: list[int], *, ratio_steps: int, upcoming: tuple[list[int], int] | None = None) -> None:
        """Nothing to prepare."""

    def targets(self, batch: CropBatch, *, device: torch.device) -> None:
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
        schedule: r * 65536 of every epoch (`Objective.ratio_steps`); its length is the number of epochs.
        mean, std: the student's input normalisation, per channel in 0..1.
        device: the student's.
        rank, world: this process and the number of all.
        accumulation: micro-batches per update.
        ahead: micro-batches to finish in a thread while others are trained on: worth it where the device is no CPU.

    Raises:
        UsageError: the global batch cannot be split evenly with partners kept together, or a ratio is none.
        MismatchError: order, loader and provider are not about the same crops.
    """

    order: EpochOrder
    loader: CropLoader
    provider: TargetProvider
    schedule: tuple[int, ...]
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
        for epoch, ratio_steps in enumerate(self.schedule):
            require_ratio_steps(ratio_steps, of=f"epoch {epoch}")
        if self.order.total != len(self.loader.index) or self.order.recipe != self.loader.recipe:
            raise MismatchError(
                f"the order is over {self.order.total} samples with recipe {self.order.recipe}, the loader over "
                f"{len(self.loader.index)} with {self.loader.recipe}: mix partners follow from both; give both the same"
            )
        self.provider.require(self.loader.index, self.order.recipe, self.order.seeds)

    @property
    def batches_per_epoch(self) -> int:
        """Micro-batches of this rank in an epoch."""
        return self.order.batches * self.accumulation

    def batches(self, epoch: int, *, start: int = 0) -> Iterator[TrainBatch]:
        """The epoch's micro-batches from `start` on.

        Raises:
            UsageError: the schedule has no such epoch.
        """
        if not 0 <= epoch < len(self.schedule):
            raise UsageError(f"epoch {epoch} is not one of the schedule's {len(self.schedule)}, counted from 0")
        shown, *upcoming = [
            (list(self.order.epoch_seeds(number)), self.schedule[number])
            for number in range(epoch, min(epoch + 2, len(self.schedule)))
        ]
        self.provider.prepare(shown[0], ratio_steps=shown[1], upcoming=upcoming[0] if upcoming else None)
        batches = self._finished(self.loader.load(self._micro_batches(epoch, start)))
        yield from ahead(batches, depth=self.ahead, device=self.device) if self.ahead else batches

    def _finished(self, loaded: Iterator[CropBatch]) -> Iterator[TrainBatch]:
        recipe = self.order.recipe
        for rendered in loaded:
            batch = rendered.on(self.device, recipe)
            yield TrainBatch(
                pixels_B3SS=batch.pixels(recipe, mean=self.mean, std=self.std, device=self.device),
                labels=batch.labels(recipe, device=self.device),
                targets=self.provider.targets(batch, device=self.device),
            )

    def _micro_batches(self, epoch: int, start: int) -> Iterator[Batch]:
        crops = self.order.crops(epoch)
        micro = self.order.batch // (self.world * self.accumulation)
        for number in range(start, self.batches_per_epoch):
            update, step = divmod(number, self.accumulation)
            first = update * self.order.batch + (self.rank * self.accumulation + step) * micro
            yield crops.part(first, first + micro)
