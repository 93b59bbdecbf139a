"""From (seeds, samples) to rendered crops, in worker processes or in this one, with the same bytes."""

from __future__ import annotations

import signal
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from cskd_pipeline.crops.batch import CropBatch
from cskd_pipeline.crops.checksum import crop_crc
from cskd_pipeline.crops.draws import CROP_DRAW, Draws
from cskd_pipeline.crops.labels import partner_rows
from cskd_pipeline.crops.recipe import CropRecipe
from cskd_pipeline.crops.render import render_region
from cskd_pipeline.errors import CskdError, RetryError
from cskd_pipeline.replay.order import Batch
from cskd_pipeline.samples import SampleIndex
from cskd_pipeline.samples.jpeg import Box


class CropLoader:
    """Loads batches in the order asked for. Workers live as long as the loader and serve one `load` at a time."""

    def __init__(
        self, index: SampleIndex, recipe: CropRecipe, *, workers: int, pin_memory: bool = False, prefetch: int = 2
    ) -> None:
        """Crops of `recipe` over the images of `index`, made by `workers` processes (0: in this one)."""
        self._wanted = _Wanted()
        self._batches: DataLoader[CropBatch | CskdError] = DataLoader(
            _Crops(index, recipe),
            batch_size=None,
            sampler=self._wanted,
            num_workers=workers,
            collate_fn=as_is,
            pin_memory=pin_memory,
            persistent_workers=workers > 0,
            prefetch_factor=prefetch if workers else None,
            worker_init_fn=leave_signals_to_the_parent if workers else None,
        )

    def load(self, batches: Iterable[Batch]) -> Iterator[CropBatch]:
        """One `CropBatch` for each (seeds, samples) of `batches`, which may be a generator.

        Raises:
            DataError: an image cannot be read or decoded; names it.
            RetryError: a worker process was killed.
        """
        self._wanted.batches = batches
        try:
            for batch in self._batches:
                if isinstance(batch, CskdError):
                    raise batch
                yield batch
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            raise RetryError(
                "a process that makes crops was killed, most likely for want of memory; give fewer --workers"
            ) from error


class _Wanted(Sampler[Any]):
    batches: Iterable[Batch] = ()

    def __iter__(self) -> Iterator[Batch]:
        return iter(self.batches)


class _Crops(Dataset[Any]):
    """Maps (seeds, samples) to a batch. Errors meant for the user come back as values, to be raised unwrapped."""

    def __init__(self, index: SampleIndex, recipe: CropRecipe) -> None:
        self.index, self.recipe = index, recipe

    def __getitem__(self, wanted: Batch) -> CropBatch | CskdError:
        seeds_B, samples_B = wanted
        draws_B = draw_batch(self.recipe, self.index, seeds_B, samples_B)
        size = self.recipe.size
        crops_B3SS = torch.empty((len(samples_B), 3, size, size), dtype=torch.uint8)
        crc_B = np.empty(len(samples_B), np.uint32)
        pixels = crops_B3SS.numpy()
        try:
            for row, sample in enumerate(samples_B.tolist()):
                draw = draws_B[row]
                box = Box(*(int(draw[edge]) for edge in ("top", "left", "height", "width")))
                pixels[row] = render_region(self.index.decode_part(sample, box), draw, self.recipe)
                crc_B[row] = crop_crc(pixels[row])
        except CskdError as error:
            return error
        labels_B = np.asarray(self.index.labels[samples_B], np.int64)
        return CropBatch(crops_B3SS, draws_B, partner_rows(draws_B), labels_B, crc_B)


def draw_batch(recipe: CropRecipe, index: SampleIndex, seeds_B: Any, samples_B: Any) -> Draws:
    """The draws of crops of several seeds, in their order."""
    draws_B = np.empty(len(samples_B), CROP_DRAW)
    for seed in np.unique(seeds_B).tolist():
        rows = np.flatnonzero(seeds_B == seed)
        samples = samples_B[rows]
        draws_B[rows] = recipe.draw(
            seed, samples, heights=index.heights[samples], widths=index.widths[samples], total=len(index)
        )
    return draws_B


def as_is(batch: Any) -> Any:
    """The batch itself: batches are made whole in the workers."""
    return batch


_GRACE_S = 15
"""How long a worker serves on after SIGTERM: enough for the parent to end an update and write a checkpoint."""


def leave_signals_to_the_parent(worker: int) -> None:
    """Let the parent decide what is finished: Ctrl-C and a scheduler's SIGTERM reach the whole process group."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Not ignored for good: it is also how Python ends a worker that is left over when the parent exits.
    signal.signal(signal.SIGTERM, lambda number, frame: signal.alarm(_GRACE_S))
