"""The evaluation split as batches: resized, centre-cropped, normalised; every image on exactly one rank."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from cskd_pipeline.crops.evaluation import evaluation_crop
from cskd_pipeline.crops.finish import Channels
from cskd_pipeline.data import SampleIndex
from cskd_pipeline.errors import CskdError
from cskd_pipeline.loading.loader import as_is
from cskd_pipeline.loading.worker_start import leave_signals_to_the_parent, start_method


@dataclasses.dataclass(frozen=True, slots=True)
class EvaluationSet:
    """This rank's batches, again in every iteration; its length is their number.

    Attributes:
        index: the images.
        size: the model's input side in pixels.
        crop_pct: share of the resized image's shorter side that the centre crop takes.
        mean, std: the model's input normalisation, per channel in 0..1.
        device: the model's.
        batch: images per batch.
        workers: processes; they live for one iteration.
        rank, world: this process and the number of all.
    """

    index: SampleIndex
    size: int
    crop_pct: float
    mean: Channels
    std: Channels
    device: torch.device
    batch: int = 256
    workers: int = 0
    rank: int = 0
    world: int = 1

    def __len__(self) -> int:
        return -(-len(range(self.rank, len(self.index), self.world)) // self.batch)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """(pixels fp32 [B, 3, S, S], labels int64 [B]) on `device`.

        Raises:
            DataError: an image cannot be read; names it.
            RetryError: object storage refuses or is out of reach.
        """
        mean, std = (torch.tensor(x, device=self.device)[:, None, None] for x in (self.mean, self.std))
        mine = np.arange(self.rank, len(self.index), self.world)
        batches = [mine[start : start + self.batch] for start in range(0, len(mine), self.batch)]
        loader: DataLoader[Any] = DataLoader(
            _Centres(self.index, self.size, self.crop_pct),
            batch_size=None,
            sampler=batches,
            num_workers=self.workers,
            collate_fn=as_is,
            worker_init_fn=leave_signals_to_the_parent if self.workers else None,
            multiprocessing_context=start_method(self.index) if self.workers else None,
        )
        for loaded in loader:
            if isinstance(loaded, CskdError):
                raise loaded
            pixels, labels = loaded
            yield (pixels.to(self.device).float() / 255 - mean) / std, labels.to(self.device)


class _Centres(Dataset[Any]):
    def __init__(self, index: SampleIndex, size: int, crop_pct: float) -> None:
        self.index, self.size, self.crop_pct = index, size, crop_pct

    def __getitem__(self, samples: Any) -> tuple[Tensor, Tensor] | CskdError:
        images = self.index.read_all(samples.tolist())
        try:
            crops = [
                evaluation_crop(self.index.decode(sample, image), size=self.size, crop_pct=self.crop_pct)
                for sample, image in zip(samples.tolist(), images, strict=True)
            ]
        except CskdError as error:
            return error
        return torch.from_numpy(np.stack(crops)), torch.from_numpy(np.asarray(self.index.labels[samples], np.int64))
