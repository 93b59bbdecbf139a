"""Hard targets of crops in memory: the winners of every position, listed by the ratio at which they take over."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from cskd_pipeline.labels.base import Records

Ints = npt.NDArray[np.int64]
UInts = npt.NDArray[np.uint16]

FAULTS = (
    "a class that does not exist",
    "a class that is twice in a palette",
    "a palette entry that is used out of order",
    "a palette with entries that nothing uses",
    "a change to the class that wins already",
    "changes of a position that do not ascend",
)


@dataclasses.dataclass(frozen=True, slots=True)
class HardRecords(Records):
    """Lists of different lengths, one after another.

    A crop's palette names every class that wins anywhere in it, the global winner first, then in order of first use.
    As k = 65536 r grows from 0, position p changes its winner `count[p]` times; the change to palette entry `code`
    has happened at k > `start`.

    Attributes:
        colours_n: int64, palette entries of each crop, at least 1.
        palette_E: the palettes of all crops.
        count_nP: changes of each position.
        code_M, start_M: all changes, by crop, position and ascending start.
    """

    colours_n: Ints
    palette_E: UInts
    count_nP: UInts
    code_M: UInts
    start_M: UInts

    def __len__(self) -> int:
        """How many crops."""
        return len(self.colours_n)

    @property
    def changes_n(self) -> Ints:
        """Changes of each crop."""
        changes: Ints = self.count_nP.sum(axis=1, dtype=np.int64)
        return changes

    def take(self, rows_n: Ints) -> Self:
        """The records of these crops, in this order."""
        entries = _spans(self.colours_n, rows_n)
        changes = _spans(self.changes_n, rows_n)
        return type(self)(
            self.colours_n[rows_n],
            self.palette_E[entries],
            self.count_nP[rows_n],
            self.code_M[changes],
            self.start_M[changes],
        )

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """The records of all parts, one after another."""
        names = [field.name for field in dataclasses.fields(cls)]
        return cls(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})

    def equal(self, other: Self) -> npt.NDArray[np.bool_]:
        """Crops with equal lists."""
        mine, theirs = self.changes_n, other.changes_n
        same: npt.NDArray[np.bool_] = (self.count_nP == other.count_nP).all(axis=1)
        same &= self.colours_n == other.colours_n
        alike = np.flatnonzero(same)
        for sizes, other_sizes, lists in (
            (self.colours_n, other.colours_n, [(self.palette_E, other.palette_E)]),
            (mine, theirs, [(self.code_M, other.code_M), (self.start_M, other.start_M)]),
        ):
            ours_at, theirs_at = _spans(sizes, alike), _spans(other_sizes, alike)
            owner = np.repeat(alike, sizes[alike])
            for ours, others in lists:
                same[owner[ours[ours_at] != others[theirs_at]]] = False
        return same

    def fault(self, classes: int) -> str | None:
        """What no encoder could have written, or None: the form of every record is unique, and checked in full."""
        from cskd_pipeline.labels.hard import kernels

        number = kernels.first_fault(*self._lists(), classes)
        return FAULTS[number - 1] if number else None

    def winners(self, ratio_steps: int) -> UInts:
        """uint16 [n, 1 + P]: the class that wins globally, then at every position, at k = `ratio_steps`."""
        from cskd_pipeline.labels.hard import kernels

        winners_nW = np.empty((len(self), 1 + self.count_nP.shape[1]), np.uint16)
        kernels.fill(*self._lists(), ratio_steps, winners_nW)
        return winners_nW

    def _lists(self) -> tuple[npt.NDArray[Any], ...]:
        return self.colours_n, self.palette_E, self.count_nP, self.code_M, self.start_M


def _spans(sizes_n: npt.NDArray[Any], rows_n: Ints) -> Ints:
    """Where the elements of these rows' lists lie, in lists one after another."""
    sizes = sizes_n[rows_n]
    begins = (np.cumsum(sizes_n) - sizes_n)[rows_n]
    spans: Ints = np.arange(int(sizes.sum())) + np.repeat(begins - (np.cumsum(sizes) - sizes), sizes)
    return spans
