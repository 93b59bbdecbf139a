"""What an encoding is: a self-describing rule between a teacher's logits, stored bytes, and targets.

encode             pack            unpack             tabulate           targets
logits -> Records  ->  StoredRows  ->  Records  ->  table of a seed  ->  targets of a batch
(stage 1, by batch)  (a block of the store)       (once an epoch and node)    (every step)
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from cskd_pipeline.errors import DataError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from cskd_pipeline.batch import Targets


@dataclasses.dataclass(frozen=True, slots=True)
class FieldSpec:
    """An array with one entry a crop: its name, and the dtype and shape of an entry."""

    name: str
    dtype: str
    row_shape: tuple[int, ...]

    @property
    def row_bytes(self) -> int:
        """Size of one entry, uncompressed."""
        return int(np.dtype(self.dtype).itemsize * np.prod(self.row_shape))


class Records(abc.ABC):
    """Encoded crops in memory, in some order. Equal teacher outputs give equal records."""

    @abc.abstractmethod
    def __len__(self) -> int:
        """How many crops."""

    @abc.abstractmethod
    def take(self, rows_n: npt.NDArray[np.int64]) -> Self:
        """The records of these crops, in this order."""

    @classmethod
    @abc.abstractmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """The records of all parts, one after another; there is at least one part."""

    @abc.abstractmethod
    def equal(self, other: Self) -> npt.NDArray[np.bool_]:
        """bool [n], which crops say the same here and in `other`."""


@dataclasses.dataclass(frozen=True, slots=True)
class StoredRows:
    """Encoded crops as the store keeps them.

    Attributes:
        rows: [m, *row_shape] of the field's dtype. For encodings of fixed rows, row i is crop i. Others fill pages:
            the bytes of each `page` consecutive rows belong together, and m is the number of crops rounded up to
            whole pages.
        spill: uint8, the bytes of pages that did not fit. Most encodings leave it empty.
        whole: whether these are all pages that `pack` made; if not, the spill holds bytes of others too.
    """

    rows: npt.NDArray[Any]
    spill: npt.NDArray[np.uint8]
    whole: bool = True


@dataclasses.dataclass(frozen=True, slots=True)
class FixedRows(Records):
    """Records of encodings that give every crop a row of one size: [n, *row_shape]."""

    rows: npt.NDArray[Any]

    def __len__(self) -> int:
        """How many crops."""
        return len(self.rows)

    def take(self, rows_n: npt.NDArray[np.int64]) -> Self:
        """These rows."""
        return type(self)(self.rows[rows_n])

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """Rows one after another."""
        return cls(np.concatenate([part.rows for part in parts]))

    def equal(self, other: Self) -> npt.NDArray[np.bool_]:
        """Rows of equal values."""
        same: npt.NDArray[np.bool_] = (self.rows == other.rows).reshape(len(self), -1).all(axis=1)
        return same

    def stored(self) -> StoredRows:
        """Kept as they are."""
        return StoredRows(self.rows, np.empty(0, np.uint8))

    @classmethod
    def of(cls, stored: StoredRows, field: FieldSpec, *, count: int) -> Self:
        """The first `count` rows.

        Raises:
            DataError: rows of another kind.
        """
        rows = stored.rows
        if rows.dtype != np.dtype(field.dtype) or rows.shape[1:] != field.row_shape or len(rows) < count:
            raise DataError(
                f"rows of {rows.dtype} {rows.shape}, expected at least {count} of {field.dtype} {field.row_shape}"
            )
        return cls(rows[:count])


class Encoding(abc.ABC):
    """A rule between logits and stored bytes. Implementations are frozen records."""

    positions: int
    """P."""
    classes: int
    """C."""
    name: ClassVar[str]
    gives: ClassVar[frozenset[str]]
    """Which targets can be decoded: a subset of {"hard", "soft"}."""
    follows_ratio: ClassVar[bool]
    """Whether the table of a seed depends on the schedule's ratio."""

    @property
    @abc.abstractmethod
    def field(self) -> FieldSpec:
        """The array this encoding fills in the store."""

    @property
    @abc.abstractmethod
    def table(self) -> FieldSpec:
        """The table that a seed in use is decoded to: one entry a crop, gathered from by batch."""

    @abc.abstractmethod
    def to_json(self) -> dict[str, Any]:
        """The encoding's settings as JSON values, its name under "name"."""

    @abc.abstractmethod
    def encode(self, dense_BPC: Tensor, global_BC: Tensor) -> Records:
        """The records of these logits (fp32, any device); a crop's record depends on its own logits alone.

        Raises:
            DataError: a logit is not finite, or not representable.
        """

    @abc.abstractmethod
    def pack(self, records: Records, *, page: int) -> StoredRows:
        """Records as the store keeps them, in pages of `page` crops.

        Raises:
            DataError: a record cannot be represented.
        """

    @abc.abstractmethod
    def unpack(self, stored: StoredRows, *, page: int, count: int) -> Records:
        """The records of the `count` crops that these pages were packed from. Checks everything; needs no torch.

        Rows of padding may follow.

        Raises:
            DataError: these are not bytes that `pack` could have written.
        """

    @abc.abstractmethod
    def tabulate(self, records: Records, *, ratio_steps: int) -> npt.NDArray[Any]:
        """Table entries [n, *table.row_shape] at the schedule's ratio `ratio_steps` / 65536; needs no torch."""

    @abc.abstractmethod
    def targets(
        self, entries_B: npt.NDArray[Any], *, grid: tuple[int, int], ratio_steps: int, device: torch.device
    ) -> Targets:
        """The targets of a batch on `device` from its table entries, made with the same `ratio_steps`."""
