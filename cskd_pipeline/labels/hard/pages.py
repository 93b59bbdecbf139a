"""Hard records as pages of bytes: the lists of up to `page` crops, each list split into byte planes.

A page is a header, uint32 [6], and a body. The header holds the number of crops, of palette entries (E) and of changes
(M), flags, and, if the body did not fit, its offset and length in bytes in the block's spill. The body is

    colours - 1   [crops]       palette entries of each crop
    count         [crops * P]   changes of each position
    palette       [E]           high bytes only
    code          [M]
    palette       [E]           low bytes only
    start         [M]           high bytes only
    start         [M]           low bytes only

in uint8. If a count or a palette of the page needs 16 bits, a flag says so and the list takes two planes, low bytes
first. With like bytes side by side, zstd finds that most of them are small: pages take 16 to 19 % less than the same
numbers as fixed rows (docs/decisions/0005). `docs/format.md` is normative.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from cskd_pipeline.errors import DataError
from cskd_pipeline.labels.base import StoredRows
from cskd_pipeline.labels.hard.records import HardRecords, UInts

HEADER = 6
WIDE_COUNTS, WIDE_CODES, SPILLED = 1, 2, 4
UNUSED = 255
"""Fills the rest of a page."""

Bytes = npt.NDArray[np.uint8]


def pack(records: HardRecords, *, page: int, row_bytes: int) -> StoredRows:
    """Pages of `page` crops, `page * row_bytes` bytes each.

    Raises:
        DataError: the spill would exceed 4 GiB.
    """
    crops = len(records)
    pages = np.full((-(-crops // page), page * row_bytes), UNUSED, np.uint8)
    entry_end = np.concatenate([[0], np.cumsum(records.colours_n)])
    change_end = np.concatenate([[0], np.cumsum(records.changes_n)])
    spill: list[Bytes] = []
    spilled = 0
    for number, first in enumerate(range(0, crops, page)):
        last = min(crops, first + page)
        entries, changes = slice(entry_end[first], entry_end[last]), slice(change_end[first], change_end[last])
        colours, count = records.colours_n[first:last] - 1, records.count_nP[first:last].reshape(-1)
        wide_counts, wide_codes = bool(count.max() > 255), bool(colours.max() > 255)
        palette, start = records.palette_E[entries], records.start_M[changes]
        body = np.concatenate(
            [
                *_planes(colours, wide=wide_codes),
                *_planes(count, wide=wide_counts),
                _high(palette),
                *_planes(records.code_M[changes], wide=wide_codes),
                _low(palette),
                _high(start),
                _low(start),
            ]
        )
        fits = 4 * HEADER + len(body) <= pages.shape[1]
        flags = WIDE_COUNTS * wide_counts | WIDE_CODES * wide_codes | SPILLED * (not fits)
        where = (0, 0) if fits else (spilled, len(body))
        if spilled + len(body) >= 1 << 32:
            raise DataError("the hard targets of a block spill over 4 GiB: the teacher's logits are all but equal")
        header = np.array([last - first, len(palette), len(start), flags, *where], "<u4").view(np.uint8)
        pages[number, : len(header)] = header
        if fits:
            pages[number, len(header) : len(header) + len(body)] = body
        else:
            spill.append(body)
            spilled += len(body)
    rows = pages.reshape(-1, row_bytes)
    return StoredRows(rows, np.concatenate(spill) if spill else np.empty(0, np.uint8))


def unpack(stored: StoredRows, *, page: int, row_bytes: int, positions: int, count: int) -> HardRecords:
    """The records of the first `count` crops.

    Raises:
        DataError: `pack` did not write these bytes, or wrote them for another number of crops.
    """
    rows = stored.rows
    if rows.dtype != np.uint8 or rows.shape[1:] != (row_bytes,) or len(rows) % page or len(rows) < count:
        raise damaged(f"rows of {rows.dtype} {rows.shape}, expected pages of {page} x {row_bytes} for {count} crops")
    pages = rows.reshape(-1, page * row_bytes)
    parts: list[HardRecords] = []
    spilled = 0
    for number, first in enumerate(range(0, count, page)):
        records, spilled = _unpack_page(
            pages[number], stored.spill, positions, crops=min(page, count - first), spilled=spilled
        )
        parts.append(records)
    if spilled != len(stored.spill):
        raise damaged(f"a spill of {len(stored.spill)} bytes, {spilled} of them used")
    return HardRecords.joined(parts)


def _unpack_page(content: Bytes, spill: Bytes, positions: int, *, crops: int, spilled: int) -> tuple[HardRecords, int]:
    """The records of a page whose spilled bytes begin at `spilled`, and where those of the next page do."""
    if len(content) < 4 * HEADER:
        raise damaged(f"a page of {len(content)} bytes")
    found, entries, changes, flags, offset, length = content[: 4 * HEADER].view("<u4").tolist()
    if found != crops or flags >= 8:
        raise damaged(f"a page that claims {found} crops and flags {flags}, expected {crops} crops")
    code_bytes, count_bytes = 2 if flags & WIDE_CODES else 1, 2 if flags & WIDE_COUNTS else 1
    sizes = [
        crops * code_bytes,
        crops * positions * count_bytes,
        entries,
        changes * code_bytes,
        entries,
        changes,
        changes,
    ]
    end = sum(sizes)
    room = content[4 * HEADER :]
    if bool(flags & SPILLED) != (end > len(room)):
        raise damaged(f"a page with flags {flags} that claims {end} bytes where {len(room)} fit")
    if flags & SPILLED:
        if (offset, length) != (spilled, end) or offset + length > len(spill):
            raise damaged(
                f"a page with {length} bytes at {offset} in a spill of {len(spill)}, expected {end} at {spilled}"
            )
        body, unused, spilled = spill[offset : offset + length], room, offset + length
    elif (offset, length) != (0, 0):
        raise damaged("a page that points into the spill without using it")
    else:
        body, unused = room[:end], room[end:]
    if (unused != UNUSED).any():
        raise damaged("a page with more bytes than it claims")
    colours, count, palette_high, code, palette_low, start_high, start_low = np.split(body, np.cumsum(sizes)[:-1])
    records = HardRecords(
        _numbers(colours, code_bytes).astype(np.int64) + 1,
        _joined_bytes(palette_low, palette_high),
        _numbers(count, count_bytes).reshape(crops, positions),
        _numbers(code, code_bytes),
        _joined_bytes(start_low, start_high),
    )
    if int(records.colours_n.sum()) != entries or int(records.changes_n.sum()) != changes:
        raise damaged("a page whose lists are not as long as its header says")
    if (int(records.count_nP.max()) > 255) != (count_bytes == 2) or (int(records.colours_n.max()) > 256) != (
        code_bytes == 2
    ):
        raise damaged(f"a page with flags {flags} that its numbers do not need")
    return records, spilled


def damaged(found: str) -> DataError:
    """The error for stored bytes that no encoder could have written."""
    return DataError(f"no hard targets: {found}")


def _planes(values: npt.NDArray[np.integer], *, wide: bool) -> list[Bytes]:
    return [_low(values), _high(values)] if wide else [_low(values)]


def _low(values: npt.NDArray[np.integer]) -> Bytes:
    return values.astype(np.uint8)


def _high(values: npt.NDArray[np.integer]) -> Bytes:
    return (values >> 8).astype(np.uint8)


def _numbers(planes: Bytes, width: int) -> UInts:
    return planes.astype(np.uint16) if width == 1 else _joined_bytes(*np.split(planes, 2))


def _joined_bytes(low: Bytes, high: Bytes) -> UInts:
    joined = high.astype(np.uint16)
    joined <<= 8
    joined |= low
    return joined
