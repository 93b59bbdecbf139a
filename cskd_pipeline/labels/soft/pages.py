"""Soft rows as pages of planes: the first field of all crops of a page, then the second, and so on.

With like bytes side by side, zstd finds how small most numbers are: 11 % less than row by row (docs/decisions/0008).
"""

from __future__ import annotations

import dataclasses

import numpy as np

from cskd_pipeline.errors import DataError
from cskd_pipeline.labels.base import StoredRows
from cskd_pipeline.labels.soft.layout import Bytes, SoftLayout

FAULTS = (
    "more crops in a page than were stored",
    "the size of a palette",
    "a class that does not exist",
    "a class twice in a palette",
    "a class in an unused slot",
    "a step to a class that is not kept",
    "a class too unlikely to be kept",
    "the mass of a tail",
    "a slot that its palette does not have",
    "a gap in the list of a position",
    "a class twice at a position",
    "a step to a class that is not kept",
    "a class too unlikely to be kept",
    "a position without classes",
)
"""What `kernels.unpack` finds, in the order of its bits."""


def pack(rows_nR: Bytes, layout: SoftLayout, *, page: int) -> StoredRows:
    """Pages of planes; zeros fill the last page up."""
    crops = -(-len(rows_nR) // page) * page
    padded = np.zeros((crops, layout.row_bytes), np.uint8)
    padded[: len(rows_nR)] = rows_nR
    pages = np.empty((crops // page, page * layout.row_bytes), np.uint8)
    for columns in layout.planes:
        plane = padded[:, columns].reshape(len(pages), -1)
        pages[:, columns.start * page : columns.stop * page] = plane
    return StoredRows(pages.reshape(crops, layout.row_bytes), np.empty(0, np.uint8))


def unpack(stored: StoredRows, layout: SoftLayout, *, page: int, count: int) -> Bytes:
    """The rows of the first `count` crops, uint8 [count, R]; each of them decodes to distributions.

    Raises:
        DataError: `pack` did not write these bytes.
    """
    from cskd_pipeline.labels.soft import kernels

    packed = stored.rows
    if packed.dtype != np.uint8 or packed.shape[1:] != (layout.row_bytes,) or len(packed) % page or len(packed) < count:
        raise DataError(
            f"no soft targets: rows of {packed.dtype} {packed.shape}, expected pages of {page} x {layout.row_bytes} "
            f"for {count} crops"
        )
    rows_nR = np.empty((count, layout.row_bytes), np.uint8)
    widths = np.array(list(layout.widths.values()))
    sizes = np.array(dataclasses.astuple(layout))
    faults = kernels.unpack(np.ascontiguousarray(packed).reshape(-1), page, widths, sizes, rows_nR)
    if faults:
        first = (faults & -faults).bit_length() - 1
        raise DataError(f"no soft targets: {FAULTS[first]} is wrong")
    return rows_nR
