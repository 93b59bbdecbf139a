"""What a worker process does: read, decode and render the crops of a piece into shared memory."""

from __future__ import annotations

import itertools
import multiprocessing
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from cskd_pipeline.crops.checksum import crop_crc
from cskd_pipeline.crops.draws import Draws
from cskd_pipeline.crops.recipe import CropRecipe
from cskd_pipeline.crops.render import render_region
from cskd_pipeline.data import Box, SampleIndex
from cskd_pipeline.errors import CskdError


class PixelSlots:
    """Memory for the pixels of pieces under way, made once: processes write and read it without copies or messages.

    It lies in shared memory if that has room, else in a temporary file that has no name any more.
    """

    def __init__(self, slots: int, *, crops: int, size: int, shared: bool) -> None:
        """Room for `slots` pieces of up to `crops` crops of `size` x `size` pixels."""
        self._shape = (slots, crops, 3, size, size)
        count = int(np.prod(self._shape))
        self._memory: Any = multiprocessing.RawArray("B", count) if shared else np.empty(count, np.uint8)

    @property
    def crops(self) -> int:
        """Crops that a slot has room for."""
        return self._shape[1]

    def __len__(self) -> int:
        return self._shape[0]

    def __getitem__(self, slot: int) -> NDArray[np.uint8]:
        """uint8 [crops, 3, size, size]."""
        pixels: NDArray[np.uint8] = np.frombuffer(self._memory, np.uint8).reshape(self._shape)[slot]
        return pixels


class Order(NamedTuple):
    """What a worker is asked for: these crops, those of an image side by side, into that slot."""

    slot: int
    draws_n: Draws


class CropMaker(Dataset[Any]):
    """Carries out orders; answers with uint32 [n], crc32c of the crops' pixels, which are in the slot then.

    Where RandAugment is left to others the answer is empty: checksums are those of augmented pixels.
    Errors meant for the user come back as values, to be raised unwrapped.
    """

    def __init__(self, index: SampleIndex, recipe: CropRecipe, slots: PixelSlots, *, augment: bool) -> None:
        self._index, self._recipe, self._slots, self._augment = index, recipe, slots, augment

    def __getitem__(self, order: Order) -> NDArray[np.uint32] | CskdError:
        draws_n, pixels = order.draws_n, self._slots[order.slot]
        samples = draws_n["sample"]
        starts = np.flatnonzero(np.diff(samples, prepend=-1)).tolist()
        encoded = self._index.read_all(samples[starts].tolist())
        try:
            for (start, stop), image in zip(itertools.pairwise([*starts, len(draws_n)]), encoded, strict=True):
                boxes = [Box(*(int(draw[edge]) for edge in Box._fields)) for draw in draws_n[start:stop]]
                parts = self._index.decode_parts(int(samples[start]), boxes, image)
                for row, part in enumerate(parts, start):
                    pixels[row] = render_region(part, draws_n[row], self._recipe, augment=self._augment)
        except CskdError as error:
            return error
        return np.array([crop_crc(crop) for crop in pixels[: len(draws_n) if self._augment else 0]], np.uint32)
