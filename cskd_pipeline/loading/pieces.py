"""Batches cut into pieces of work for the processes that make crops.

A piece is a few dozen crops, whatever the batch size: many workers share a large batch, so that the first one is there
soon, and the memory that pieces travel in is bounded. Crops of one image that are due within the next batches (as with
repeated augmentation) go into one piece, which decodes the image once.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections import deque
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

PIECE = 64
"""The most crops that one worker makes at a time: large enough that messages cost nothing, small enough to share."""


class Piece(NamedTuple):
    """Crops to make together, those of an image side by side.

    Attributes:
        samples_n: int64, the images.
        batch_n, row_n: int64, where each belongs: the number of the batch, and the row in it.
    """

    samples_n: NDArray[np.int64]
    batch_n: NDArray[np.int64]
    row_n: NDArray[np.int64]


@dataclasses.dataclass(slots=True)
class _Due:
    number: int
    samples_B: NDArray[np.int64]
    planned_B: NDArray[np.bool_]


def pieces(batches: Iterable[NDArray[np.int64]], *, crops: int, ahead: int = 1) -> Iterator[Piece]:
    """Pieces of about `crops` crops that make up these batches, batch after batch.

    Args:
        batches: the samples of each, int64 [B].
        crops: the most crops in a piece.
        ahead: among how many batches, from the one at work on, crops of an image are looked for.
    """
    coming = (_Due(number, samples_B, np.zeros(len(samples_B), bool)) for number, samples_B in enumerate(batches))
    window = deque(itertools.islice(coming, ahead))
    while window:
        yield from _cut(_planned(window), crops)
        window.popleft()
        window.extend(itertools.islice(coming, 1))


def _planned(window: deque[_Due]) -> Piece:
    """The crops still to make for the first batch, with the same images' crops for later ones."""
    first = window[0]
    wanted = first.samples_B[~first.planned_B]
    parts = []
    for due in window:
        rows = np.flatnonzero(~due.planned_B & np.isin(due.samples_B, wanted))
        due.planned_B[rows] = True
        parts.append(Piece(due.samples_B[rows], np.full(len(rows), due.number, np.int64), rows))
    whole = Piece(*(np.concatenate(column) for column in zip(*parts, strict=True)))
    return _taken(whole, np.argsort(whole.samples_n, kind="stable"))


def _cut(whole: Piece, crops: int) -> Iterator[Piece]:
    """Parts of at most `crops` crops; the crops of an image stay together where possible."""
    total = len(whole.samples_n)
    if not total:
        return
    begins = np.flatnonzero(np.diff(whole.samples_n, prepend=whole.samples_n[0] - 1))
    start = 0
    while start < total:
        stop = min(start + crops, total)
        fitting = begins[(begins > start) & (begins <= stop)]
        if stop < total and len(fitting):
            stop = int(fitting[-1])
        yield _taken(whole, np.arange(start, stop))
        start = stop


def _taken(piece: Piece, rows: NDArray[np.int64]) -> Piece:
    return Piece(*(column[rows] for column in piece))
