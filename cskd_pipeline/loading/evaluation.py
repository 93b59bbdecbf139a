"""The evaluation split as batches: resized, centre-cropped, normalised; every image on exactly one rank."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from cskd_pipeline.crops.evaluation import evaluation_crop
from cskd_pipeline.crops.finish import Channels
from cskd_pipeline.data import SampleIndex
from cskd_pipeline.loading.making import Slots
from cskd_pipeline.loading.worker_start import start_method
from cskd_pipeline.loading.workers import Order, Workers
from cskd_pipeline.runtime.memory import ReusedMemory


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
        images: so many of them alone, the first; None takes all. The order of an index is random.
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
    images: int | None = None

    def __len__(self) -> int:
        return -(-len(self._samples()) // self.batch)

    def _samples(self) -> range:
        total = len(self.index)
        return range(self.rank, total if self.images is None else min(total, self.images), self.world)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """(pixels fp32 [B, 3, S, S], labels int64 [B]) on `device`.

        Raises:
            DataError: an image cannot be read; names it.
            RetryError: a worker process was killed, or object storage refuses or is out of reach.
        """
        mean, std = (torch.tensor(x, device=self.device)[:, None, None] for x in (self.mean, self.std))
        slots = Slots(batch=self.batch, size=self.size, workers=self.workers)
        memory = ReusedMemory()
        batches = _parts(self._samples(), self.batch)

        def orders() -> Iterator[Order]:
            pieces = (piece for batch in batches for piece in _parts(batch, slots.crops))
            for number, piece in enumerate(pieces):
                slot = number % len(slots)
                slots.draws(slot)["sample"][: len(piece)] = piece
                yield slot, len(piece)

        work = _CentreMaker(self.index, self.size, self.crop_pct, slots)
        method = start_method(self.index) if self.workers else None
        with contextlib.closing(Workers(work, self.workers, method=method)) as workers:
            made = workers.carry_out(orders(), ahead=slots.ahead)
            for batch in batches:
                pixels = memory.empty((len(batch), 3, self.size, self.size), torch.uint8)
                for start in range(0, len(batch), slots.crops):
                    slot, count = next(made)
                    pixels.numpy()[start : start + count] = slots.pixels(slot)[:count]
                labels = torch.from_numpy(np.asarray(self.index.labels[np.asarray(batch)], np.int64))
                yield (pixels.to(self.device).float() / 255 - mean) / std, labels.to(self.device)


class _CentreMaker:
    """Carries out orders: the centre crops of a slot's samples."""

    def __init__(self, index: SampleIndex, size: int, crop_pct: float, slots: Slots) -> None:
        self._index, self._size, self._crop_pct, self._slots = index, size, crop_pct, slots

    def __call__(self, order: Order) -> None:
        slot, count = order
        pixels, samples = self._slots.pixels(slot), self._slots.draws(slot)["sample"][:count].tolist()
        for row, (sample, image) in enumerate(zip(samples, self._index.read_all(samples), strict=True)):
            decoded = self._index.decode(sample, image)
            pixels[row] = evaluation_crop(decoded, size=self._size, crop_pct=self._crop_pct)


def _parts(samples: range, most: int) -> list[range]:
    return [samples[start : start + most] for start in range(0, len(samples), most)]
