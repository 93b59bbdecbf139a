"""Soft rows: which byte says what, how rows become pages of planes, and what no encoder writes.

A row is the fields of `SoftLayout.widths`, one after another. A page keeps the same bytes field by field: first the
first field of all its crops, then the second ... Like beside like is what lets zstd see how small most numbers are:
11 % less than row by row (docs/decisions/0008). `docs/format.md` is the normative description.
"""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import numpy.typing as npt

from cskd_pipeline.errors import DataError
from cskd_pipeline.labels.base import StoredRows

ABSENT = 255
"""The slot of a place in a position's list that is not used."""
RANGE = 16.0
"""Nats below its position's likeliest class at which a class is no longer kept, and the tail no longer told from 0."""

Bytes = npt.NDArray[np.uint8]


@dataclasses.dataclass(frozen=True, slots=True)
class SoftLayout:
    """Sizes that settings lead to.

    Attributes:
        positions: P.
        classes: C.
        k: classes kept at a position, at most C.
        global_k: classes kept of the global output, at most C.
        palette: slots L.
        levels: steps that make up `RANGE`.
    """

    positions: int
    classes: int
    k: int
    global_k: int
    palette: int
    levels: int

    @property
    def step(self) -> float:
        """Nats between neighbouring codes: a power of two."""
        return RANGE / self.levels

    @property
    def widths(self) -> dict[str, int]:
        """Bytes of each field of a row, in order."""
        ranked = {f"slot{rank}": self.positions for rank in range(self.k)}
        steps = {f"step{rank}": self.positions for rank in range(1, self.k)}
        return {
            "shared": 1,
            "others": 1,
            "palette_low": self.palette,
            "palette_high": self.palette,
            "global_tail": 1,
            "global_step": self.global_k - 1,
            "tail": self.positions,
            **ranked,
            **steps,
        }

    @property
    def row_bytes(self) -> int:
        """R."""
        return sum(self.widths.values())

    def fields(self) -> dict[str, slice]:
        """Columns of each field; `slot` and `step` are those of all ranks together."""
        ends = list(itertools.accumulate(self.widths.values(), initial=0))
        fields = {name: slice(*ends[i : i + 2]) for i, name in enumerate(self.widths)}
        fields["slot"] = slice(fields["slot0"].start, fields[f"slot{self.k - 1}"].stop)
        fields["step"] = slice(fields["slot"].stop, self.row_bytes)
        return fields


def pack(rows_nR: Bytes, layout: SoftLayout, *, page: int) -> StoredRows:
    """Pages of planes; the last page is filled up with crops of zeros."""
    crops = -(-len(rows_nR) // page) * page
    padded = np.zeros((crops, layout.row_bytes), np.uint8)
    padded[: len(rows_nR)] = rows_nR
    pages = np.empty((crops // page, page * layout.row_bytes), np.uint8)
    for columns in _planes(layout):
        plane = padded[:, columns].reshape(len(pages), -1)
        pages[:, columns.start * page : columns.stop * page] = plane
    return StoredRows(pages.reshape(crops, layout.row_bytes), np.empty(0, np.uint8))


def unpack(stored: StoredRows, layout: SoftLayout, *, page: int, count: int) -> Bytes:
    """The rows of the first `count` crops, checked.

    Raises:
        DataError: `pack` did not write these bytes.
    """
    packed = stored.rows
    if packed.dtype != np.uint8 or packed.shape[1:] != (layout.row_bytes,) or len(packed) % page or len(packed) < count:
        raise DataError(
            f"no soft targets: rows of {packed.dtype} {packed.shape}, expected pages of {page} x {layout.row_bytes} "
            f"for {count} crops"
        )
    rows = np.empty((count, layout.row_bytes), np.uint8)
    for first in range(0, count, page):  # a page at a time stays in the processor's cache
        flat = packed[first : first + page].reshape(-1)
        mine = rows[first : first + page]
        for columns in _planes(layout):
            plane = flat[columns.start * page : columns.stop * page].reshape(page, -1)
            mine[:, columns] = plane[: len(mine)]
            if plane[len(mine) :].any():
                raise _damaged("more crops in a page than were stored")
        check(mine, layout)
    return rows


def _planes(layout: SoftLayout) -> list[slice]:
    fields = layout.fields()
    return [fields[name] for name in layout.widths]


def check(rows_nR: Bytes, layout: SoftLayout) -> None:
    """Nothing, if every row decodes to distributions.

    Raises:
        DataError: one does not.
    """
    field = {name: rows_nR[:, columns] for name, columns in layout.fields().items()}
    shared_n, others_n = (field[name][:, 0].astype(np.int64) for name in ("shared", "others"))
    used_n = shared_n + others_n
    if ((shared_n < 1) | (shared_n > layout.global_k) | (used_n > layout.palette)).any():
        raise _damaged("the size of a palette")
    slot_L = np.arange(layout.palette, dtype=np.uint8)
    used = slot_L < used_n.astype(np.uint8)[:, None]
    _check_palette(palette_classes(rows_nR, layout), used, layout)
    if ((field["palette_low"] | field["palette_high"]) * ~used).any():
        raise _damaged("a class in an unused slot")
    _check_steps(field["global_step"], slot_L[1 : layout.global_k] < field["shared"], layout, axis=1)
    if max(field["tail"].max(initial=0), field["global_tail"].max(initial=0)) >= 2 * layout.levels:
        raise _damaged("the mass of a tail")
    slot = field["slot"].reshape(len(rows_nR), layout.k, layout.positions)
    kept = slot != ABSENT
    if ((slot >= used_n.astype(np.uint8)[:, None, None]) & kept).any():
        raise _damaged("a slot that its palette does not have")
    if (kept[:, 1:] & ~kept[:, :-1]).any():
        raise _damaged("a gap in the list of a position")
    for rank, other in itertools.combinations(range(layout.k), 2):
        if ((slot[:, rank] == slot[:, other]) & kept[:, other]).any():
            raise _damaged("a class twice at a position")
    _check_steps(field["step"].reshape(len(rows_nR), layout.k - 1, layout.positions), kept[:, 1:], layout, axis=1)
    if (field["tail"][~kept[:, 0]] != layout.levels).any():
        raise _damaged("a position without classes")


def palette_classes(rows_nR: Bytes, layout: SoftLayout) -> npt.NDArray[np.int32]:
    """The class of every slot, int32 [n, L]; what unused slots hold means nothing."""
    fields = layout.fields()
    code = rows_nR[:, fields["palette_high"]].astype(np.int32)
    code <<= 8
    code |= rows_nR[:, fields["palette_low"]]
    other = np.arange(layout.palette, dtype=np.uint8) >= rows_nR[:, fields["shared"]]
    ascending = np.cumsum((code + 1) * other, axis=1, dtype=np.int32)
    return np.where(other, ascending - 1, code)


def _check_palette(class_nL: npt.NDArray[np.int32], used: npt.NDArray[np.bool_], layout: SoftLayout) -> None:
    if ((class_nL >= layout.classes) & used).any():
        raise _damaged("a class that does not exist")
    none = 65535  # no class has this number
    number = np.where(used, class_nL, none).astype(np.uint16)
    number.sort(axis=1)
    if ((number[:, 1:] == number[:, :-1]) & (number[:, 1:] != none)).any():
        raise _damaged("a class twice in a palette")


def _check_steps(step: Bytes, kept: npt.NDArray[np.bool_], layout: SoftLayout, *, axis: int) -> None:
    if (step * ~kept).any():
        raise _damaged("a step to a class that is not kept")
    if step.sum(axis=axis, dtype=np.uint16).max(initial=0) > layout.levels:
        raise _damaged("a class too unlikely to be kept")


def _damaged(found: str) -> DataError:
    return DataError(f"no soft targets: {found} is wrong")
