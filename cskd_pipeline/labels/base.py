"""The contract of encodings: self-describing rules between what a teacher says, stored bytes and targets.

encode             pack            unpack             tabulate           targets
logits -> Records  ->  StoredRows  ->  Records  ->  table of a seed  ->  targets of a batch
(stage 1, by batch)  (a block of the store)       (once per epoch and node)   (every step)

Shape letters: B crops of a batch, n crops in any order, P positions, C classes, R bytes of a stored row.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from cskd_pipeline.record import Record

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from cskd_pipeline.batch import Features, Targets


@dataclasses.dataclass(frozen=True, slots=True)
class FieldSpec:
    """An array with one entry per crop: its name, and the dtype and shape of an entry."""

    name: str
    dtype: str
    row_shape: tuple[int, ...]

    @property
    def row_bytes(self) -> int:
        """Size of one entry, uncompressed."""
        return int(np.dtype(self.dtype).itemsize * np.prod(self.row_shape))


class Records(abc.ABC):
    """Encoded crops in memory. Equal teacher outputs give equal records."""

    @abc.abstractmethod
    def __len__(self) -> int:
        """Number of crops."""

    @abc.abstractmethod
    def take(self, rows_n: npt.NDArray[np.int64]) -> Self:
        """The records of these crops, in this order."""

    @classmethod
    @abc.abstractmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """The records of all parts, one after another. There must be at least one part."""

    @abc.abstractmethod
    def equal(self, other: Self) -> npt.NDArray[np.bool_]:
        """bool [n]: which crops have the same record here and in `other`."""


@dataclasses.dataclass(frozen=True, slots=True)
class StoredRows:
    """Encoded crops as the store keeps them.

    Attributes:
        rows: [m, *row_shape] of the field's dtype. For `full`, row i is crop i. `hard` and `soft` fill pages: the
            bytes of each `page` consecutive rows belong together, and m is the number of crops rounded up to whole
            pages.
        spill: uint8, the bytes of pages that did not fit; empty for all encodings but `hard`.
    """

    rows: npt.NDArray[Any]
    spill: npt.NDArray[np.uint8]


@dataclasses.dataclass(frozen=True, slots=True)
class FixedRows(Records):
    """Records of encodings that give every crop a row of one size.

    Attributes:
        rows: [n, *row_shape].
    """

    rows: npt.NDArray[Any]

    def __len__(self) -> int:
        """Number of crops."""
        return len(self.rows)

    def take(self, rows_n: npt.NDArray[np.int64]) -> Self:
        """The rows of these crops, in this order."""
        return type(self)(self.rows[rows_n])

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """The rows of all parts, one after another."""
        return cls(np.concatenate([part.rows for part in parts]))

    def equal(self, other: Self) -> npt.NDArray[np.bool_]:
        """bool [n]: which crops have equal rows."""
        same: npt.NDArray[np.bool_] = (self.rows == other.rows).reshape(len(self), -1).all(axis=1)
        return same


class Encoding(Record, abc.ABC):
    """A rule between logits and stored bytes. Implementations are frozen dataclasses of their settings."""

    positions: int
    """P."""
    classes: int
    """C."""
    name: ClassVar[str]
    gives: ClassVar[frozenset[str]]
    """The kinds of targets it decodes to, of "hard", "soft", "truth", "features.pooled" and "features.tokens"."""
    follows_ratio: ClassVar[bool]
    """Whether the table of a seed depends on the schedule's ratio."""

    @property
    @abc.abstractmethod
    def field(self) -> FieldSpec:
        """The array this encoding fills in the store."""

    @property
    @abc.abstractmethod
    def table(self) -> FieldSpec:
        """The table a seed is decoded to for training: one entry per crop, gathered by batch."""

    def to_json(self) -> dict[str, Any]:
        """The settings as JSON values, with the encoding's name under "name"."""
        return {"name": self.name, **super().to_json()}

    @abc.abstractmethod
    def encode(
        self,
        dense_BPC: Tensor,
        global_BC: Tensor,
        labels_B2: Tensor | None = None,
        features: Features | None = None,
    ) -> Records:
        """The records of a batch on any device. A crop's record depends on what is said of this crop alone.

        Args:
            dense_BPC, global_BC: fp32 logits.
            labels_B2: the true classes, int64: the crop's own and its mix partner's.
            features: of the teacher.

        Raises:
            DataError: a value is not finite, or the encoding cannot represent it.
        """

    @abc.abstractmethod
    def pack(self, records: Records, *, page: int) -> StoredRows:
        """The records as the store keeps them, in pages of `page` crops.

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
