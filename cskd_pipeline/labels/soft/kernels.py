"""Unpacks and checks soft pages in one compiled pass, each page while it is in the processor's cache."""

from __future__ import annotations

from typing import Any

import numpy as np

from cskd_pipeline.labels.soft.layout import ABSENT
from cskd_pipeline.runtime.compiled import jit

_TOGETHER = 32  # crops whose positions are checked together: their bytes fit the level 1 cache

# Faults as bits, in the order of `pages.FAULTS`.
_PADDING, _SIZES, _NO_CLASS, _TWICE, _UNUSED, _GLOBAL_STEP, _GLOBAL_DEPTH = 1, 2, 4, 8, 16, 32, 64
_TAIL, _SLOT, _GAP, _AGAIN, _STEP, _DEPTH, _NO_FIRST = 1 << 7, 1 << 8, 1 << 9, 1 << 10, 1 << 11, 1 << 12, 1 << 13


@jit
def unpack(flat: Any, page: int, widths: Any, sizes: Any, rows_nR: Any) -> Any:
    """Fill `rows_nR` from its pages. Return the faults of the first page that has any, or 0.

    Args:
        flat: uint8, the pages.
        page: crops per page.
        widths: int64, bytes of each field of a row.
        sizes: int64, the fields of `SoftLayout`: positions, classes, k, global_k, palette, levels.
        rows_nR: uint8, the result.
    """
    count, row_bytes = rows_nR.shape
    owner_C = np.full(sizes[1], -1, np.int64)
    for first in range(0, count, page):
        crops = min(page, count - first)
        planes = flat[first * row_bytes : (first + page) * row_bytes]
        found = _transpose(planes, page, widths, rows_nR[first : first + crops])
        found |= _palettes(rows_nR[first : first + crops], sizes, owner_C, first)
        if not found & _SIZES:
            found |= _positions(planes, page, sizes, rows_nR[first : first + crops])
        if found:
            return found
    return 0


@jit
def _transpose(planes: Any, page: int, widths: Any, rows_nR: Any) -> int:
    """Fill rows from the planes of a page. Padding other than zeros is a fault."""
    crops = len(rows_nR)
    for crop in range(crops):
        row, at = rows_nR[crop], 0
        for width in widths:
            target, source = row[at : at + width], planes[at * page + crop * width : at * page + (crop + 1) * width]
            for i in range(width):
                target[i] = source[i]
            at += width
    padding, at = 0, 0
    for width in widths:
        for value in planes[at * page + crops * width : (at + width) * page]:
            padding |= value
        at += width
    return _PADDING if padding else 0


@jit
def _palettes(rows_nR: Any, sizes: Any, owner_C: Any, first: int) -> int:
    """Faults of palettes and global outputs. `owner_C` keeps which crop named each class last."""
    classes, global_k, palette, levels = sizes[1], sizes[3], sizes[4], sizes[5]
    found = 0
    for crop in range(len(rows_nR)):
        row = rows_nR[crop]
        shared, used = np.int64(row[0]), np.int64(row[0]) + np.int64(row[1])
        if shared < 1 or shared > global_k or used > palette:
            return _SIZES
        low_L, high_L = row[2 : 2 + palette], row[2 + palette : 2 + 2 * palette]
        for slot in range(shared):
            class_ = np.int64(low_L[slot]) | np.int64(high_L[slot]) << 8
            if class_ >= classes:
                found |= _NO_CLASS
                break
            found |= _TWICE if owner_C[class_] == first + crop else 0
            owner_C[class_] = first + crop
        class_ = np.int64(-1)
        for slot in range(shared, used):  # these ascend, and are kept as gaps
            class_ += (np.int64(low_L[slot]) | np.int64(high_L[slot]) << 8) + 1
            if class_ >= classes:
                found |= _NO_CLASS
                break
            found |= _TWICE if owner_C[class_] == first + crop else 0
        rest = 0
        for slot in range(used, palette):
            rest |= low_L[slot] | high_L[slot]
        found |= _UNUSED if rest else 0
        at = 2 + 2 * palette
        found |= _TAIL if row[at] >= 2 * levels else 0
        depth, beyond = 0, 0
        for rank in range(1, global_k):
            depth += row[at + rank]
            beyond |= row[at + rank] if rank >= shared else 0
        found |= _GLOBAL_STEP if beyond else 0
        found |= _GLOBAL_DEPTH if depth > levels else 0
    return found


@jit
def _positions(planes: Any, page: int, sizes: Any, rows_nR: Any) -> int:
    """Faults of positions, plane by plane.

    Loops over byte arrays whose results are stored as bytes again compile to wide instructions.
    """
    positions, k, global_k, palette, levels = sizes[0], sizes[2], sizes[3], sizes[4], sizes[5]
    tail_at = (2 + 2 * palette + global_k) * page
    slot_at = tail_at + positions * page
    step_at = slot_at + k * positions * page
    used_N, bad_N = np.empty(_TOGETHER * positions, np.uint8), np.empty(_TOGETHER * positions, np.uint8)
    depth_N = np.empty(_TOGETHER * positions, np.uint16)
    found = np.uint8(0)
    for first in range(0, len(rows_nR), _TOGETHER):
        crops = min(_TOGETHER, len(rows_nR) - first)
        begin, end = first * positions, (first + crops) * positions
        for crop in range(crops):
            used_N[crop * positions : (crop + 1) * positions] = rows_nR[first + crop, 0] + rows_nR[first + crop, 1]
        tail_N, first_N = planes[tail_at + begin : tail_at + end], planes[slot_at + begin : slot_at + end]
        most, none = np.uint8(2 * levels - 1), np.uint8(levels)
        for i in range(end - begin):
            bad_N[i] = (tail_N[i] > most) | ((first_N[i] == ABSENT) & (tail_N[i] != none)) << 1
            depth_N[i] = 0
        for rank in range(k):
            at = slot_at + rank * positions * page
            slot_N = planes[at + begin : at + end]
            for i in range(end - begin):
                bad_N[i] |= ((slot_N[i] >= used_N[i]) & (slot_N[i] != ABSENT)) << 2
            for other in range(rank):
                at = slot_at + other * positions * page
                other_N = planes[at + begin : at + end]
                for i in range(end - begin):
                    bad_N[i] |= ((slot_N[i] == other_N[i]) & (slot_N[i] != ABSENT)) << 3
            if rank:
                at = slot_at + (rank - 1) * positions * page
                before_N = planes[at + begin : at + end]
                at = step_at + (rank - 1) * positions * page
                step_N = planes[at + begin : at + end]
                for i in range(end - begin):
                    bad_N[i] |= ((before_N[i] == ABSENT) & (slot_N[i] != ABSENT)) << 4
                    bad_N[i] |= ((step_N[i] != 0) & (slot_N[i] == ABSENT)) << 5
                for i in range(end - begin):
                    depth_N[i] += step_N[i]
        for i in range(end - begin):
            bad_N[i] |= (depth_N[i] > levels) << 6
        for i in range(end - begin):
            found |= bad_N[i]
    bits = (_TAIL, _NO_FIRST, _SLOT, _AGAIN, _GAP, _STEP, _DEPTH)
    faults = 0
    for number in range(len(bits)):
        if found >> number & 1:
            faults |= bits[number]
    return faults
