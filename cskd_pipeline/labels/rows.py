"""Encodings that give every crop one row of numbers, stored as it is."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from cskd_pipeline.errors import DataError
from cskd_pipeline.labels.base import Encoding, FieldSpec, FixedRows, Records, StoredRows


class RowEncoding(Encoding):
    """Rows are stored, and decoded for training, as they are encoded; none holds a value that is not finite."""

    @property
    def table(self) -> FieldSpec:
        """The stored rows themselves."""
        return self.field

    def pack(self, records: Records, *, page: int) -> StoredRows:
        """The rows as they are."""
        assert isinstance(records, FixedRows)
        return StoredRows(records.rows, np.empty(0, np.uint8))

    def unpack(self, stored: StoredRows, *, page: int, count: int) -> FixedRows:
        """The rows, all finite where they hold floating-point numbers."""
        rows, field = stored.rows, self.field
        if rows.dtype != np.dtype(field.dtype) or rows.shape[1:] != field.row_shape or len(rows) < count:
            raise DataError(
                f"rows of {rows.dtype} {rows.shape}, expected at least {count} of {field.dtype} {field.row_shape}"
            )
        if rows.dtype.kind == "f" and not np.isfinite(rows[:count]).all():
            raise DataError(f"a `{field.name}` row holds a value that is not finite: the store is damaged; run verify")
        return FixedRows(rows[:count])

    def tabulate(self, records: Records, *, ratio_steps: int) -> npt.NDArray[Any]:
        """The rows as they are."""
        assert isinstance(records, FixedRows)
        return records.rows
