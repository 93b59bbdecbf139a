"""Records of encodings that give every crop a row of one size."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from cskd_pipeline.errors import DataError
from cskd_pipeline.labels.base import FieldSpec, Records, StoredRows


@dataclasses.dataclass(frozen=True, slots=True)
class FixedRows(Records):
    """One row a crop: [n, *row_shape]."""

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
