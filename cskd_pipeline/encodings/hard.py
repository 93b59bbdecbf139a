"""The exact hard target of every schedule in one small row per crop.

Row layout (little-endian, no gaps; L, E are the row's capacities, P its positions):

    palette  uint16[L]   the classes that win anywhere in the crop; slot 0 is argmax_c g, which wins at r = 0
    count    uint8[P]    how often the winner changes at each position as r grows from 0 to 1
    code     uint8[E]    for each change, position after position: the palette slot that takes over ...
    start    uint16[E]   ... from ratio (start + 1) / 65536 on, ascending within a position

Unused palette entries are 65535, unused codes and counts of changes 0, unused starts 65535. A crop that exceeds a
capacity has count[0] = 255; its palette[1:3] and palette[3:5], as uint32, are the offset and the length in bytes of
its record in the block's spill:

    sizes    uint32[2]   palette entries, changes
    palette  uint16[sizes[0]]
    count    uint32[P]
    code     uint16[sizes[1]]
    start    uint16[sizes[1]]

`docs/format.md` is the normative description.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from cskd_pipeline.encodings.base import EncodedRows, Encoding, FieldSpec
from cskd_pipeline.errors import DataError, UsageError
from cskd_pipeline.records.frozen import Record
from cskd_pipeline.records.ratio import RATIO_STEPS

if TYPE_CHECKING:
    from torch import Tensor

    from cskd_pipeline.records.targets import Targets

SPILLED = 255
MAX_CLASSES = 65_535
_NO_CLASS = 65_535
_NO_START = 65_535

_Int = npt.NDArray[np.int64]


@dataclasses.dataclass(frozen=True, slots=True)
class HardEncoding(Record, Encoding):
    """Exact for r in {0, 1/65536, ..., 1}: argmax over all classes of r*d + (1-r)*g in fp32, ties to the lowest.

    Attributes:
        positions: P.
        classes: C, at most 65,535.
        palette: L, capacity for different winners of a crop. 0 chooses min(C, 64), at least 5.
        changes: E, capacity for winner changes of a crop. 0 chooses 4 * P.
    """

    name: ClassVar[str] = "hard"
    gives: ClassVar[frozenset[str]] = frozenset({"hard"})

    positions: int
    classes: int
    palette: int = 0
    changes: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.classes <= MAX_CLASSES:
            raise UsageError(f"encoding hard: classes must be 1 to {MAX_CLASSES}, found {self.classes}")
        if self.positions < 1:
            raise UsageError(f"encoding hard: positions must be at least 1, found {self.positions}")
        if self.palette == 0:
            object.__setattr__(self, "palette", max(5, min(self.classes, 64)))
        if self.changes == 0:
            object.__setattr__(self, "changes", 4 * self.positions)
        if not 5 <= self.palette <= 256:
            raise UsageError(f"encoding hard: palette must be 5 to 256, found {self.palette}")
        if self.changes < 1:
            raise UsageError(f"encoding hard: changes must be at least 1, found {self.changes}")

    @property
    def _row(self) -> np.dtype[Any]:
        return np.dtype(
            [
                ("palette", "<u2", (self.palette,)),
                ("count", "u1", (self.positions,)),
                ("code", "u1", (self.changes,)),
                ("start", "<u2", (self.changes,)),
            ]
        )

    @property
    def field(self) -> FieldSpec:
        """Field `hard`, uint8 rows."""
        return FieldSpec("hard", "|u1", (self._row.itemsize,))

    def to_json(self) -> dict[str, Any]:
        """Settings with the name."""
        return {"name": self.name, **Record.to_json(self)}

    def encode(self, dense_BPC: Tensor, global_BC: Tensor) -> EncodedRows:
        """Rows uint8 [B, R]."""
        import torch

        from cskd_pipeline.encodings.envelope import envelope

        crops = len(dense_BPC)
        dense_NC = dense_BPC.to(torch.float32).reshape(-1, self.classes)
        global_NC = global_BC.to(torch.float32)[:, None].expand(-1, self.positions, -1).reshape(-1, self.classes)
        segments = envelope(dense_NC, global_NC)
        position, start, winner = (x.cpu().numpy() for x in (segments.position_M, segments.start_M, segments.winner_M))
        first = start == 0
        top_B = winner[first].reshape(crops, self.positions)[:, 0]
        change = ~first
        return self._pack(top_B, position[change], start[change] - 1, winner[change])

    def _pack(self, top_B: _Int, position_M: _Int, start_M: _Int, winner_M: _Int) -> EncodedRows:
        crops = len(top_B)
        crop_M = position_M // self.positions
        changes_B = np.bincount(crop_M, minlength=crops)
        count_BP = np.bincount(position_M, minlength=crops * self.positions).reshape(crops, self.positions)
        palette_crop, palette_class, slot_M = _palettes(top_B, crop_M, winner_M)
        palette_size_B = np.bincount(palette_crop, minlength=crops)
        fits_B = (changes_B <= self.changes) & (palette_size_B <= self.palette) & (count_BP.max(axis=1) < SPILLED)

        rows = np.zeros(crops, self._row)
        rows["palette"] = _NO_CLASS
        rows["start"] = _NO_START
        rows["count"] = np.where(fits_B[:, None], count_BP, 0)
        palette_rank = _rank(palette_crop, palette_size_B)
        keep = fits_B[palette_crop]
        rows["palette"][palette_crop[keep], palette_rank[keep]] = palette_class[keep]
        keep, rank = fits_B[crop_M], _rank(crop_M, changes_B)
        rows["code"][crop_M[keep], rank[keep]] = slot_M[keep]
        rows["start"][crop_M[keep], rank[keep]] = start_M[keep]

        spill: list[bytes] = []
        offset = 0
        for crop in np.flatnonzero(~fits_B):
            mine = crop_M == crop
            palette = palette_class[palette_crop == crop]
            record = b"".join(
                [
                    np.array([len(palette), mine.sum()], "<u4").tobytes(),
                    palette.astype("<u2").tobytes(),
                    count_BP[crop].astype("<u4").tobytes(),
                    slot_M[mine].astype("<u2").tobytes(),
                    start_M[mine].astype("<u2").tobytes(),
                ]
            )
            rows["palette"][crop, 0] = top_B[crop]
            rows["count"][crop, 0] = SPILLED
            rows["palette"][crop, 1:5] = np.array([offset, len(record)], "<u4").view("<u2")
            spill.append(record)
            offset += len(record)
        return EncodedRows(rows.view(np.uint8).reshape(crops, -1), np.frombuffer(b"".join(spill), np.uint8))

    def join(self, parts: Sequence[EncodedRows]) -> EncodedRows:
        """Rows one after another, spill offsets moved by the bytes before them."""
        joined = np.concatenate([part.rows for part in parts])
        rows = joined.view(self._row).reshape(-1)
        before = np.repeat(
            np.cumsum([0, *(len(part.spill) for part in parts)])[:-1], [len(part.rows) for part in parts]
        )
        for crop in np.flatnonzero(rows["count"][:, 0] == SPILLED):
            pointer = rows["palette"][crop, 1:3].copy().view("<u4")
            rows["palette"][crop, 1:3] = (pointer + np.uint32(before[crop])).view("<u2")
        return EncodedRows(joined, np.concatenate([part.spill for part in parts]))

    def decode(self, encoded: EncodedRows, *, grid: tuple[int, int], ratio_steps: int) -> Targets:
        """Hard targets at this ratio."""
        import torch

        from cskd_pipeline.records.targets import Targets

        top_S, winner_SP = self.winners(encoded, ratio_steps)
        return Targets(
            ratio_steps=ratio_steps,
            hard_global_B=torch.from_numpy(top_S.astype(np.int64)),
            hard_dense_BHW=torch.from_numpy(winner_SP.astype(np.int64)).reshape(-1, *grid),
        )

    def check(self, encoded: EncodedRows) -> None:
        """Rows decode at both ends, and changes of a position come in ascending order."""
        for ratio_steps in (0, RATIO_STEPS):
            self.winners(encoded, ratio_steps)
        rows = np.ascontiguousarray(encoded.rows).view(self._row).reshape(-1)
        count_SP = np.where(rows["count"][:, :1] == SPILLED, 0, rows["count"]).astype(np.int64)
        change_SE = np.arange(self.changes)[None] < count_SP.sum(axis=1)[:, None]
        first_SE = np.zeros((len(rows), self.changes + 1), bool)
        np.put_along_axis(first_SE, count_SP.cumsum(axis=1), True, axis=1)
        descends = rows["start"][:, 1:] <= rows["start"][:, :-1]
        if (descends & change_SE[:, 1:] & ~first_SE[:, 1 : self.changes]).any():
            raise _damaged("winner changes of a position that do not ascend")

    def equal(self, ours: EncodedRows, theirs: EncodedRows) -> npt.NDArray[np.bool_]:
        """Rows of the same bytes, or with the same spilled record."""
        same: npt.NDArray[np.bool_] = (ours.rows == theirs.rows).all(axis=1)
        other = self._spilled(theirs)
        for crop, record in self._spilled(ours).items():
            same[crop] = other.get(crop) == record
        return same

    def _spilled(self, encoded: EncodedRows) -> dict[int, bytes]:
        """The records of the rows that overflowed, by row."""
        rows = np.ascontiguousarray(encoded.rows).view(self._row).reshape(-1)
        records = {}
        for crop in np.flatnonzero(rows["count"][:, 0] == SPILLED).tolist():
            offset, length = rows["palette"][crop, 1:5].copy().view("<u4").tolist()
            records[crop] = encoded.spill[offset : offset + length].tobytes()
        return records

    def winners(self, encoded: EncodedRows, ratio_steps: int) -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.uint16]]:
        """Classes uint16 [S] that win globally and [S, P] that win at every position, at this ratio.

        Raises:
            DataError: a row is not one that `encode` could have written.
        """
        row_bytes = self.field.row_bytes
        if encoded.rows.dtype != np.uint8 or encoded.rows.shape[1:] != (row_bytes,):
            raise DataError(f"hard rows must be uint8 of {row_bytes} bytes, found {encoded.rows.shape}")
        rows = np.ascontiguousarray(encoded.rows).view(self._row).reshape(-1)
        count_SP = rows["count"].astype(np.int64)
        spilled = np.flatnonzero(count_SP[:, 0] == SPILLED)
        count_SP[spilled] = 0
        winner_SP = self._active(rows["palette"], count_SP, rows["code"], rows["start"], ratio_steps)
        top_S = rows["palette"][:, 0].copy()
        for crop in spilled:
            pointer = rows["palette"][crop, 1:5].copy().view("<u4")
            palette, count_P, code, start = self._spill_record(encoded.spill, int(pointer[0]), int(pointer[1]))
            winner_SP[crop] = self._active(palette[None], count_P[None], code[None], start[None], ratio_steps)[0]
            if palette[0] != top_S[crop]:
                raise _damaged(f"row {crop} and its spill name different global winners")
        if len(top_S) and int(max(top_S.max(), winner_SP.max())) >= self.classes:
            raise _damaged(f"a class of {int(max(top_S.max(), winner_SP.max()))}, only {self.classes} exist")
        return top_S, winner_SP

    def _active(
        self,
        palette_SL: npt.NDArray[np.uint16],
        count_SP: _Int,
        code_SE: npt.NDArray[Any],
        start_SE: npt.NDArray[np.uint16],
        ratio_steps: int,
    ) -> npt.NDArray[np.uint16]:
        end_SP = count_SP.cumsum(axis=1)
        begin_SP = end_SP - count_SP
        if len(end_SP) and int(end_SP[:, -1].max()) > code_SE.shape[1]:
            raise _damaged(f"a row with {int(end_SP[:, -1].max())} changes, room for {code_SE.shape[1]}")
        passed_SE = np.zeros((len(code_SE), code_SE.shape[1] + 1), np.int64)
        np.cumsum(start_SE < ratio_steps, axis=1, out=passed_SE[:, 1:])
        passed_SP = np.take_along_axis(passed_SE, end_SP, 1) - np.take_along_axis(passed_SE, begin_SP, 1)
        current_SP = np.minimum(begin_SP + np.maximum(passed_SP, 1) - 1, code_SE.shape[1] - 1)
        slot_SP = np.where(passed_SP > 0, np.take_along_axis(code_SE, current_SP, 1), 0).astype(np.int64)
        if len(slot_SP) and int(slot_SP.max()) >= palette_SL.shape[1]:
            raise _damaged(f"palette slot {int(slot_SP.max())}, room for {palette_SL.shape[1]}")
        return np.take_along_axis(palette_SL, slot_SP, 1)

    def _spill_record(
        self, spill: npt.NDArray[np.uint8], offset: int, length: int
    ) -> tuple[npt.NDArray[np.uint16], _Int, npt.NDArray[np.uint16], npt.NDArray[np.uint16]]:
        record = spill[offset : offset + length]
        if len(record) != length or length < 8:
            raise _damaged(f"a spill record of {length} bytes at {offset}, the block's spill holds {len(spill)}")
        colours, changes = (int(x) for x in record[:8].view("<u4"))
        ends = np.cumsum([8, 2 * colours, 4 * self.positions, 2 * changes, 2 * changes])
        if ends[-1] != length or colours < 1 or changes < 1:
            raise _damaged(f"a spill record of {length} bytes at {offset} that claims {colours} + {changes} entries")
        palette, count, code, start = (record[ends[i] : ends[i + 1]].copy() for i in range(4))
        return (
            palette.view("<u2"),
            count.view("<u4").astype(np.int64),
            code.view("<u2"),
            start.view("<u2"),
        )


def _palettes(top_B: _Int, crop_M: _Int, winner_M: _Int) -> tuple[_Int, _Int, _Int]:
    """Palette entries (crop, class), crop by crop in order of first use, and the slot of each change."""
    crop = np.concatenate([np.arange(len(top_B)), crop_M])
    class_ = np.concatenate([top_B, winner_M])
    order = np.argsort(crop, kind="stable")  # the global winner first, then the changes as they come
    crop, class_ = crop[order], class_[order]
    _, first, inverse = np.unique(crop * (MAX_CLASSES + 1) + class_, return_index=True, return_inverse=True)
    by_use = np.argsort(first)
    entry_crop, entry_class = crop[first[by_use]], class_[first[by_use]]
    rank = _rank(entry_crop, np.bincount(entry_crop, minlength=len(top_B)))
    slot_of_key = np.empty_like(rank)
    slot_of_key[by_use] = rank
    slot = np.empty_like(order)
    slot[order] = slot_of_key[inverse]
    return entry_crop, entry_class, slot[len(top_B) :]


def _rank(group_M: _Int, size_B: _Int) -> _Int:
    """0, 1, 2, ... within each group of an ascending list of groups with these sizes."""
    before_B = np.cumsum(size_B) - size_B
    return np.arange(len(group_M)) - before_B[group_M]


def _damaged(found: str) -> DataError:
    return DataError(f"a `hard` row is damaged: {found}; run `cskd-pipeline verify` on the store")
