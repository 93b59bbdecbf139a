"""From (seeds, samples) to batches of rendered crops, in worker processes or in this one, with the same bytes."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray

from cskd_pipeline.crops import op_kernels
from cskd_pipeline.crops.batch import CropBatch
from cskd_pipeline.crops.draws import CROP_DRAW, Draws
from cskd_pipeline.crops.labels import partner_rows
from cskd_pipeline.crops.recipe import CropRecipe
from cskd_pipeline.data import SampleIndex
from cskd_pipeline.loading.making import CropMaker, Slots
from cskd_pipeline.loading.order import Batch
from cskd_pipeline.loading.pieces import Piece, pieces
from cskd_pipeline.loading.worker_start import start_method
from cskd_pipeline.loading.workers import Order, Workers
from cskd_pipeline.runtime.memory import ReusedMemory

_DRAWN_AT_ONCE = 4096


class CropLoader:
    """Loads batches in the order asked for. Workers live until the loader is closed and serve one `load` at a time.

    Attributes:
        index: the images.
        recipe: the crops.
    """

    def __init__(
        self,
        index: SampleIndex,
        recipe: CropRecipe,
        *,
        workers: int,
        augment: bool = True,
        pin_memory: bool = False,
        ahead: int = 1,
    ) -> None:
        """Crops of `recipe` over the images of `index`.

        Args:
            index: the images.
            recipe: the crops.
            workers: processes that make them (0: this one does).
            augment: with RandAugment; else `CropBatch.on` does it, on the model's device and to the same bytes.
            pin_memory: put batches in page-locked memory, for a GPU.
            ahead: an image's crops in so many successive batches are made together.
        """
        self.index, self.recipe = index, recipe
        self._count, self._ahead, self._augment = workers, ahead, augment
        self._start_method = start_method(index) if workers else None
        self._pixels = ReusedMemory(kept=ahead + 2, pinned=pin_memory)
        self._finished = ReusedMemory()
        self._started: tuple[Workers, Slots] | None = None
        self._work: _Work | None = None

    def load(self, batches: Iterable[Batch]) -> Iterator[CropBatch]:
        """One `CropBatch` for each (seeds, samples) of `batches`, which may be a generator.

        Workers have begun when this returns.

        Raises:
            DataError: an image cannot be read or decoded; names it.
            RetryError: a worker process was killed, or object storage refuses or is out of reach.
        """
        draws = _drawn(iter(batches), self.recipe, self.index)
        first = next(draws, None)
        if first is None:
            return iter(())
        if self._started is None or self._started[0].closed:
            self._started = self._start(batch=len(first))
        workers, slots = self._started
        self._retire()
        work = self._work = _Work(itertools.chain([first], draws), slots, ahead=self._ahead)
        return work.batches(workers.carry_out(work.orders(), ahead=slots.ahead), self._begin)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """End the workers; without this they end with the process."""
        self._retire()
        if self._started is not None:
            self._started[0].close()
        self._started = None

    def _retire(self) -> None:
        """An iterator left from an earlier `load` must not receive the batches of the next."""
        if self._work is not None:
            self._work.over = True

    def _start(self, *, batch: int) -> tuple[Workers, Slots]:
        if self._count and self._augment:
            op_kernels.load()  # once for all workers, where they are forked
        slots = Slots(batch=batch, size=self.recipe.size, workers=self._count)
        maker = CropMaker(self.index, self.recipe, slots, augment=self._augment)
        return Workers(maker, self._count, method=self._start_method), slots

    def _begin(self, draws_B: Draws) -> CropBatch:
        """A batch without its pixels and their checksums."""
        size = self.recipe.size
        return CropBatch(
            crops_B3SS=self._pixels.empty((len(draws_B), 3, size, size), torch.uint8),
            draws_B=draws_B,
            partner_rows_B=partner_rows(draws_B),
            labels_B=np.asarray(self.index.labels[draws_B["sample"]], np.int64),
            crc_B=np.empty(len(draws_B), np.uint32) if self._augment else None,
            augmented=self._augment,
            memory=self._finished,
        )


class _Work:
    """One `load`: sends orders to the workers and assembles the batches from their answers, in order."""

    def __init__(self, draws: Iterator[Draws], slots: Slots, *, ahead: int) -> None:
        self._slots = slots
        self.over = False
        self._draws: dict[int, Draws] = {}  # of the batches under way, by number
        self._ordered: deque[Piece] = deque()
        self._pieces = pieces(self._samples(draws), crops=slots.crops, ahead=ahead)

    def _samples(self, draws: Iterator[Draws]) -> Iterator[NDArray[np.int64]]:
        for number, draws_B in enumerate(draws):
            self._draws[number] = draws_B
            yield draws_B["sample"]

    def orders(self) -> Iterator[Order]:
        """The next orders for the workers; a slot is reused once its crops have been taken out."""
        for number, piece in enumerate(self._pieces):
            self._ordered.append(piece)
            slot = number % len(self._slots)
            draws_n = self._slots.draws(slot)
            for batch, rows in _by_batch(piece):
                draws_n[rows] = self._draws[batch][piece.row_n[rows]]
            yield slot, len(piece.row_n)

    def batches(self, made: Iterator[Order], begin: Callable[[Draws], CropBatch]) -> Iterator[CropBatch]:
        """Whole batches in order."""
        begun: dict[int, CropBatch] = {}
        missing: dict[int, int] = {}
        first = 0
        while True:
            if self.over:
                raise RuntimeError("the loader was closed, or loads other batches now")
            done = next(made, None)
            if done is None:
                return
            slot, piece = done[0], self._ordered.popleft()
            slot_pixels, slot_crcs = self._slots.pixels(slot), self._slots.checksums(slot)
            for number, rows in _by_batch(piece):
                if number not in begun:
                    begun[number] = begin(self._draws[number])
                    missing[number] = len(begun[number])
                batch = begun[number]
                pixels = batch.crops_B3SS.numpy()
                for row in rows.tolist():  # one by one: a selection of all would be a copy in fresh memory
                    pixels[piece.row_n[row]] = slot_pixels[row]
                if batch.crc_B is not None:
                    batch.crc_B[piece.row_n[rows]] = slot_crcs[rows]
                missing[number] -= len(rows)
            while missing.get(first) == 0:
                del missing[first], self._draws[first]
                yield begun.pop(first)
                first += 1


def _by_batch(piece: Piece) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """The numbers of the batches that crops of the piece belong to, and which crops of the piece."""
    for number in np.unique(piece.batch_n).tolist():
        yield number, np.flatnonzero(piece.batch_n == number)


def _drawn(batches: Iterator[Batch], recipe: CropRecipe, index: SampleIndex) -> Iterator[Draws]:
    """The draws of each batch; drawing for many batches at a time costs a tenth."""
    while portion := list(_until(batches, crops=_DRAWN_AT_ONCE)):
        seeds_n, samples_n, partners_n = (np.concatenate(column) for column in zip(*portion, strict=True))
        draws_n = np.empty(len(samples_n), CROP_DRAW)
        for seed in np.unique(seeds_n).tolist():
            rows = np.flatnonzero(seeds_n == seed)
            samples = samples_n[rows]
            draws_n[rows] = recipe.draw(
                seed,
                samples,
                heights=index.heights[samples],
                widths=index.widths[samples],
                total=len(index),
                partners_n=partners_n[rows],
            )
        yield from np.split(draws_n, np.cumsum([len(batch.samples_B) for batch in portion])[:-1])


def _until(batches: Iterator[Batch], *, crops: int) -> Iterator[Batch]:
    taken = 0
    while taken < crops and (batch := next(batches, None)) is not None:
        taken += len(batch.samples_B)
        yield batch
