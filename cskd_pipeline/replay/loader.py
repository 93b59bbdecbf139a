"""The loader of a training loop: an epoch's crops, finished for the student, with their labels and targets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, Self

import torch

from cskd_pipeline.batch import TrainBatch
from cskd_pipeline.crops.finish import Channels
from cskd_pipeline.crops.recipe import CropRecipe
from cskd_pipeline.data import SampleIndex
from cskd_pipeline.errors import UsageError
from cskd_pipeline.loading import CropLoader, EpochOrder
from cskd_pipeline.loading.order import Shuffle
from cskd_pipeline.objectives import Objective
from cskd_pipeline.ratio import RATIO_STEPS
from cskd_pipeline.record import require_choice, require_range
from cskd_pipeline.replay.source import ReplaySource, TargetProvider
from cskd_pipeline.runtime.processors import worker_count
from cskd_pipeline.runtime.ranks import rank, world_size


class ReplayLoader:
    """Iterates over the batches of one epoch, and has the length of an epoch.

    `set_epoch` chooses the epoch, and with it the augmentation seed and the ratio of the objective's schedule. With a
    process group up, each rank gets its part of every global batch. Use it in a `with` block, or `close` it: worker
    processes and decoded labels live that long.
    """

    def __init__(
        self,
        index: SampleIndex,
        recipe: CropRecipe,
        provider: TargetProvider,
        objective: Objective,
        *,
        seeds: Sequence[int],
        epochs: int,
        batch_size: int,
        mean: Channels,
        std: Channels,
        device: torch.device,
        repeats: int = 1,
        shuffle: Shuffle | None = None,
        key: int = 0,
        accumulation: int = 1,
        workers: int | None = None,
        augment: Literal["workers", "device"] = "workers",
        finish_ahead: bool = True,
    ) -> None:
        """Load crops of `recipe` over the images of `index`, with targets from `provider`.

        Args:
            index: the images.
            recipe: the crops.
            provider: the targets; closed with the loader.
            objective: its schedule gives each epoch's ratio.
            seeds: augmentation seeds; epoch e shows seed e modulo their number.
            epochs: of the whole run, which the schedule spans.
            batch_size: crops per update, over all ranks and accumulated micro-batches.
            mean, std: the student's input normalisation, per channel in 0..1.
            device: where the batches are put.
            repeats: seeds shown in an epoch (repeated augmentation).
            shuffle: "full", or by "blocks" of consecutive samples; default "blocks" with repeats, else "full".
            key: of the shuffle.
            accumulation: micro-batches per update.
            workers: processes that read images, 0 for none; None chooses by the machine.
            augment: where RandAugment runs, in the "workers" or on the "device".
            finish_ahead: on a GPU, finish the next batch while one is trained on.

        Raises:
            UsageError: the numbers do not fit together.
            MismatchError: the provider's targets are of other images, another recipe or other seeds.
        """
        counts = {"batch-size": batch_size, "epochs": epochs, "repeats": repeats, "accumulation": accumulation}
        for name, value in counts.items():
            require_range(f"--{name}", value, low=1, whole=True)
        require_range("the key of the shuffle", key, whole=True)
        require_choice("--augment", augment, ("workers", "device"))
        if accumulation > 1 and getattr(objective, "whole_batch", False):
            raise UsageError(
                f"a term of this objective belongs to the whole batch, which --accumulation {accumulation} splits; "
                "give --accumulation 1 and more processes, or a smaller --batch-size"
            )
        if shuffle is not None:
            require_choice("--shuffle", shuffle, ("full", "blocks"))
        if workers is not None:
            require_range("--workers", workers, low=0, whole=True)
        order = EpochOrder(
            recipe=recipe,
            seeds=tuple(seeds),
            total=len(index),
            batch=int(batch_size),
            repeats=int(repeats),
            key=key,
            shuffle=shuffle or ("blocks" if repeats > 1 else "full"),
        )
        on_gpu = device.type == "cuda"
        self.epoch, self.epochs, self.shuffle = 0, epochs, order.shuffle
        self._objective = objective
        self._crops = CropLoader(
            index,
            recipe,
            workers=worker_count(workers),
            augment=augment == "workers",
            pin_memory=on_gpu,
            ahead=order.ahead * accumulation,
        )
        self._source = ReplaySource(
            order=order,
            loader=self._crops,
            provider=provider,
            schedule=tuple(objective.ratio_steps(epoch, epochs) for epoch in range(epochs)),
            mean=mean,
            std=std,
            device=device,
            rank=rank(),
            world=world_size(),
            accumulation=accumulation,
            ahead=int(on_gpu and finish_ahead),
        )

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch, from 0, that the next iteration goes through.

        Raises:
            UsageError: the run has no such epoch.
        """
        require_range("the epoch", epoch, whole=True)
        if not 0 <= epoch < self.epochs:
            raise UsageError(f"epoch {epoch} is none of the run's {self.epochs}, which count from 0")
        self.epoch = int(epoch)

    @property
    def ratio(self) -> float:
        """r of the epoch: the share of local targets, 0 (all global) to 1 (all local)."""
        return self._objective.ratio_steps(self.epoch, self.epochs) / RATIO_STEPS

    def __len__(self) -> int:
        """Batches (micro-batches, with accumulation) that this rank gets in an epoch."""
        return self._source.batches_per_epoch

    @property
    def batches_per_epoch(self) -> int:
        """The same number, under the name that `training` asks for."""
        return len(self)

    def __iter__(self) -> Iterator[TrainBatch]:
        """The batches of the epoch that is chosen when the first is asked for: (pixels, labels, targets) on the device.

        Raises:
            DataError: an image cannot be read, labels are damaged, or crops are not those that the labels were made of.
            RetryError: a worker was killed, or storage refuses.
        """
        yield from self.batches(self.epoch)

    def batches(self, epoch: int, *, start: int = 0) -> Iterator[TrainBatch]:
        """The batches of an epoch from number `start` on, for a run that is resumed in the middle."""
        self.set_epoch(epoch)
        return self._source.batches(epoch, start=start)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """End the workers, and release decoded labels."""
        self._crops.close()
        self._source.provider.close()
