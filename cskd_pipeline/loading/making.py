"""What a worker process does: read, decode and render the crops of a piece into shared memory."""

from __future__ import annotations

import itertools
import os
import weakref
from multiprocessing.heap import Arena
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cskd_pipeline.crops.checksum import crop_crc
from cskd_pipeline.crops.draws import CROP_DRAW, Draws
from cskd_pipeline.crops.recipe import CropRecipe
from cskd_pipeline.crops.render import render_region
from cskd_pipeline.data import Box, SampleIndex
from cskd_pipeline.loading.pieces import PIECE
from cskd_pipeline.loading.workers import MOST_AHEAD, Order

_RECORD = np.dtype([("draw", CROP_DRAW), ("crc", "<u4")])


class Slots:
    """Memory for pieces under way, made once: processes write and read it without copies or messages.

    Attributes:
        ahead: how many orders a worker may have at a time.
    """

    def __init__(self, *, batch: int, size: int, workers: int) -> None:
        """Slots for the pieces that `workers` make while batches of `batch` crops of `size` pixels are consumed."""
        # The consumer may be busy for as long as a batch takes to make; workers must not wait for it.
        self.ahead = min(MOST_AHEAD, max(2, -(-2 * batch // (PIECE * max(1, workers)))))
        # An order is given before the latest piece is taken out of its slot: one slot more than orders under way.
        self._shape = (workers * self.ahead + 1, PIECE, 3, size, size)
        self._pixel_bytes = int(np.prod(self._shape))
        count = self._pixel_bytes + len(self) * self.crops * _RECORD.itemsize
        self._memory: Any = _shared(count) if workers else np.empty(count, np.uint8)

    @property
    def crops(self) -> int:
        """How many crops a slot holds."""
        return self._shape[1]

    def __len__(self) -> int:
        return self._shape[0]

    def pixels(self, slot: int) -> NDArray[np.uint8]:
        """uint8 [crops, 3, size, size]."""
        pixels: NDArray[np.uint8] = self._bytes()[: self._pixel_bytes].reshape(self._shape)[slot]
        return pixels

    def draws(self, slot: int) -> Draws:
        """The crops to make in the slot, [crops]."""
        draws: Draws = self._records(slot)["draw"]
        return draws

    def checksums(self, slot: int) -> NDArray[np.uint32]:
        """uint32 [crops], crc32c of the crops made in the slot."""
        checksums: NDArray[np.uint32] = self._records(slot)["crc"]
        return checksums

    def _records(self, slot: int) -> NDArray[np.void]:
        records: NDArray[np.void] = self._bytes()[self._pixel_bytes :].view(_RECORD).reshape(self._shape[:2])[slot]
        return records

    def _bytes(self) -> NDArray[np.uint8]:
        return np.frombuffer(getattr(self._memory, "buffer", self._memory), np.uint8)


def _shared(size: int) -> Arena:
    """Memory that workers share, however they are started.

    A memory file, where the system has them: it is bounded by memory alone, while a container may give /dev/shm 64 MB,
    and a write beyond that kills the process. Elsewhere a temporary file, in /dev/shm if that has room.
    """
    if not hasattr(os, "memfd_create"):
        return Arena(size)
    file = os.memfd_create("cskd-pipeline crops")
    os.ftruncate(file, size)
    arena = Arena(size, file)
    weakref.finalize(arena, os.close, file)
    return arena


class CropMaker:
    """Carries out orders: the crops of a slot's draws, those of an image side by side, into that slot.

    With their checksums, unless RandAugment is left to others: checksums are those of augmented pixels.
    """

    def __init__(self, index: SampleIndex, recipe: CropRecipe, slots: Slots, *, augment: bool) -> None:
        self._index, self._recipe, self._slots, self._augment = index, recipe, slots, augment

    def __call__(self, order: Order) -> None:
        """Make the crops of one piece."""
        slot, crops = order
        draws_n, pixels = self._slots.draws(slot)[:crops], self._slots.pixels(slot)
        samples = draws_n["sample"]
        starts = np.flatnonzero(np.diff(samples, prepend=-1)).tolist()
        encoded = self._index.read_all(samples[starts].tolist())
        for (start, stop), image in zip(itertools.pairwise([*starts, len(draws_n)]), encoded, strict=True):
            boxes = [Box(*(int(draw[edge]) for edge in Box._fields)) for draw in draws_n[start:stop]]
            parts = self._index.decode_parts(int(samples[start]), boxes, image)
            for row, part in enumerate(parts, start):
                pixels[row] = render_region(part, draws_n[row], self._recipe, augment=self._augment)
        if self._augment:
            self._slots.checksums(slot)[:crops] = [crop_crc(crop) for crop in pixels[:crops]]
