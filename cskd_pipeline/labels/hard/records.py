"""Hard targets of crops in memory: for every position, the winners and the ratios at which they take over."""

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
"""What `kernels.first_fault` finds, in the order of its numbers."""


@dataclasses.dataclass(frozen=True, slots=True)
class HardRecords(Records):
    """Lists of varying lengths, one after another: E palette entries and M changes in all.

    A crop's palette names every class that wins anywhere in it: the global winner first, the others in order of first
    use. As k = 65536 r grows from 0, position p changes its winner `count[p]` times. A change to palette entry `code`
    is in effect at k > `start`.

    Attributes:
        colours_n: int64, number of palette entries of each crop, at least 1.
        palette_E: uint16, the palettes of all crops.
        count_nP: uint16, number of changes of each position.
        code_M: uint16, palette entries that all changes lead to, ordered by crop, position and start.
        start_M: uint16, where these changes happen.
    """

    colours_n: Ints
    palette_E: UInts
    count_nP: UInts
    code_M: UInts
    start_M: UInts

    def __len__(self) -> int:
        """Number of crops."""
        return len(self.colours_n)

    @property
    def changes_n(self) -> Ints:
        """int64: number of changes of each crop."""
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
        """bool [n]: which crops have equal lists."""
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
        """What no encoder could have written, or None. Records have a unique form, which is checked in full."""
        from cskd_pipeline.labels.hard import kernels

        number = kernels.first_fault(*self._lists(), classes)
        return FAULTS[number - 1] if number else None

    def winners(self, ratio_steps: int) -> UInts:
        """uint16 [n, 1 + P]: at k = `ratio_steps`, the class that wins globally, then at every position."""
        from cskd_pipeline.labels.hard import kernels

        winners_nW = np.empty((len(self), 1 + self.count_nP.shape[1]), np.uint16)
        kernels.fill(*self._lists(), ratio_steps, winners_nW)
        return winners_nW

    def _lists(self) -> tuple[npt.NDArray[Any], ...]:
        return self.colours_n, self.palette_E, self.count_nP, self.code_M, self.start_M


def _spans(sizes_n: npt.NDArray[Any], rows_n: Ints) -> Ints:
    """Indices of the elements of these rows' lists, in lists stored one after another."""
    sizes = sizes_n[rows_n]
    begins = (np.cumsum(sizes_n) - sizes_n)[rows_n]
    spans: Ints = np.arange(int(sizes.sum())) + np.repeat(begins - (np.cumsum(sizes) - sizes), sizes)
    return spans
