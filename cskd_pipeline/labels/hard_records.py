"""Hard targets of crops in memory: the winners of every position, listed by the ratio at which they take over."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from cskd_pipeline.errors import DataError
from cskd_pipeline.labels.base import Records

MAX_CHANGES = 65_535
TOLERANCE = 8 * 2.0**-24
"""Share of the largest logit that rounding cannot bridge, see `envelope`: 4.01 / 2^24 and what float64 adds."""
TINIEST = 1e-40
"""The same among denormal numbers."""

Ints = npt.NDArray[np.int64]
UInts = npt.NDArray[np.uint16]


@dataclasses.dataclass(frozen=True, slots=True)
class HardRecords(Records):
    """Lists of different lengths, one after another.

    A crop's palette names every class that wins anywhere in it, the global winner first, then in order of first use.
    As k = 65536 r grows from 0, position p changes its winner `count[p]` times; the change to palette entry `code`
    has happened at k > `start`.

    Attributes:
        colours_n: int64, palette entries of each crop, at least 1.
        palette_N: the palettes of all crops.
        count_nP: changes of each position.
        code_M, start_M: all changes, by crop, position and ascending start.
    """

    colours_n: Ints
    palette_N: UInts
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
            self.palette_N[entries],
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
            (self.colours_n, other.colours_n, [(self.palette_N, other.palette_N)]),
            (mine, theirs, [(self.code_M, other.code_M), (self.start_M, other.start_M)]),
        ):
            ours_at, theirs_at = _spans(sizes, alike), _spans(other_sizes, alike)
            owner = np.repeat(alike, sizes[alike])
            for ours, others in lists:
                same[owner[ours[ours_at] != others[theirs_at]]] = False
        return same

    def fault(self, classes: int) -> str | None:
        """What no encoder could have written, or None: the form of every record is unique, and checked in full."""
        crop_M = np.repeat(np.arange(len(self)), self.changes_n)
        first_M = _firsts(self.count_nP.reshape(-1))
        if len(self.palette_N) and int(self.palette_N.max()) >= classes:
            return f"class {int(self.palette_N.max())}, only {classes} exist"
        crop_N = np.repeat(np.arange(len(self)), self.colours_n)
        if len(np.unique(crop_N << 16 | self.palette_N)) != len(crop_N):
            return "a class that is twice in a palette"
        code = self.code_M.astype(np.int64)
        # A palette entry is introduced by the change that uses it first, in order.
        known = np.maximum.accumulate((crop_M << 17) + code) if len(code) else code
        before = np.concatenate([[-1], known[:-1]])
        before = np.where(before >> 17 == crop_M, before & 0x1FFFF, 0)
        if (code > before + 1).any():
            return "a palette entry that is used out of order"
        used = np.ones(len(self), np.int64)
        np.maximum.at(used, crop_M, code + 1)
        if (used != self.colours_n).any():
            return "a palette with entries that nothing uses"
        previous = np.where(first_M, 0, np.concatenate([[0], code[:-1]]) if len(code) else code)
        if (code == previous).any():
            return "a change to the class that wins already"
        start = self.start_M.astype(np.int64)
        if (~first_M[1:] & (start[1:] <= start[:-1])).any():
            return "changes of a position that do not ascend"
        return None

    def table(self, ratio_steps: int) -> npt.NDArray[np.uint16]:
        """uint16 [n, 1 + P]: the class that wins globally, then at every position, at k = `ratio_steps`."""
        table = np.empty((len(self), 1 + self.count_nP.shape[1]), np.uint16)
        palette_at = np.cumsum(self.colours_n) - self.colours_n
        table[:, 0] = self.palette_N[palette_at]
        passed = np.zeros(len(self.start_M) + 1, np.int64)
        np.cumsum(self.start_M < ratio_steps, out=passed[1:])
        end_nP = np.cumsum(self.count_nP, dtype=np.int64).reshape(self.count_nP.shape)
        begin_nP = end_nP - self.count_nP
        passed_nP = passed[end_nP] - passed[begin_nP]
        slot_nP = np.zeros(self.count_nP.shape, np.int64)
        changed = passed_nP > 0
        slot_nP[changed] = self.code_M[(begin_nP + passed_nP - 1)[changed]]
        table[:, 1:] = self.palette_N[palette_at[:, None] + slot_nP]
        return table


def from_changes(top_n: Ints, positions: int, position_M: Ints, start_M: Ints, winner_M: Ints) -> HardRecords:
    """Records from the winners at k = 0 and all changes, sorted by position (counted over all crops) and start.

    Raises:
        DataError: a position changes its winner more than 65,535 times.
    """
    crops = len(top_n)
    crop_M = position_M // positions
    crop = np.concatenate([np.arange(crops), crop_M])
    class_ = np.concatenate([top_n, winner_M])
    order = np.argsort(crop, kind="stable")  # the global winner first, then the changes as they come
    _, first, inverse = np.unique((crop << 16 | class_)[order], return_index=True, return_inverse=True)
    by_use = np.argsort(first)
    entry = order[first[by_use]]
    colours_n = np.bincount(crop[entry], minlength=crops)
    slot_of_key = np.empty_like(by_use)
    slot_of_key[by_use] = np.arange(len(by_use)) - np.repeat(np.cumsum(colours_n) - colours_n, colours_n)
    slot = np.empty_like(order)
    slot[order] = slot_of_key[inverse]
    count_N = np.bincount(position_M, minlength=crops * positions)
    if len(count_N) and int(count_N.max()) > MAX_CHANGES:
        raise too_many_changes()
    return HardRecords(
        colours_n,
        class_[entry].astype(np.uint16),
        count_N.astype(np.uint16).reshape(crops, positions),
        slot[crops:].astype(np.uint16),
        start_M.astype(np.uint16),
    )


def not_finite() -> DataError:
    """For a teacher's logits of infinity or NaN."""
    return DataError("the teacher gave logits that are not finite; check its weights, or run it in fp32")


def too_many_changes() -> DataError:
    """For logits of which two classes stay within rounding of one another over the whole range."""
    return DataError(
        f"the teacher's logits are equal up to rounding: more than {MAX_CHANGES:,} changes of the winner at a "
        "position; check its weights, or use --targets full"
    )


def _spans(sizes_n: npt.NDArray[Any], rows_n: Ints) -> Ints:
    """Where the elements of these rows' lists lie, in lists one after another."""
    sizes = sizes_n[rows_n]
    begins = (np.cumsum(sizes_n) - sizes_n)[rows_n]
    spans: Ints = np.arange(int(sizes.sum())) + np.repeat(begins - (np.cumsum(sizes) - sizes), sizes)
    return spans


def _firsts(sizes_n: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """bool over all elements of lists one after another: whether it is the first of its list."""
    sizes = sizes_n.astype(np.int64)
    first = np.zeros(int(sizes.sum()), bool)
    first[(np.cumsum(sizes) - sizes)[sizes > 0]] = True
    return first
