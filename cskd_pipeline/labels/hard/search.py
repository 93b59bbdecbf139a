"""The exact search for the classes that win as the ratio grows, compiled.

At one grid position class c scores t[c](r) = r*d[c] + (1-r)*g[c] (CSKD, ICCV 2023, eq. 5): a line in r. A schedule's
r is a multiple of 1/65536, so the hard target is a step function of k = 65536*r. `search` finds that function exactly
as fp32 arithmetic defines it: for each of the 65,537 ratios the winner equals
argmax over ALL classes of fp32(fp32(r*d) + fp32((1-r)*g)), ties to the lowest class.

Why this needs few evaluations. With u = 2^-24 and M the largest magnitude among the crop's logits, the computed score
differs from the real one by less than E = (2u + u^2) M. So a class that is ahead of all others by more than 2E in real
arithmetic also wins in fp32. A lead is linear in r: if one class leads by more than 2E at both ends of an interval it
does so inside, and the inside need not be evaluated. Any other interval is split, first where the lines of its two end
winners cross, and in the end down to neighbouring ratios, each evaluated as written above. Classes with the same line
as the winner tie with it everywhere and lose by their higher number.

Few classes are candidates: a class behind the higher of two lines, those of the winners at r = 0 and at r = 1, at both
ends and where the two cross, can win nowhere.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from cskd_pipeline.errors import DataError
from cskd_pipeline.labels.hard.records import HardRecords
from cskd_pipeline.ratio import RATIO_STEPS
from cskd_pipeline.runtime.compiled import jit

MAX_CHANGES = 65_535
"""The most changes of the winner that a position can have."""

_TOLERANCE = 8 * 2.0**-24  # a lead of this share of the largest logit outlasts rounding: 4.01 / 2^24, and float64's own
_TINIEST = 1e-40  # the same among denormal numbers
_BLOCK = 64  # classes compared at a time
_FEW = 16  # candidates up to which one plain loop is faster than wide instructions
_DONE, _NOT_FINITE, _TOO_MANY = 0, 1, 2
_STEPS = 2  # from an end without a certain lead to the next ratio evaluated
_DEPTH = 128  # open intervals: two more a split, and every second split halves: at most 1 + 2 * 2 * 17


def search(dense_BPC: npt.NDArray[np.float32], global_BC: npt.NDArray[np.float32]) -> HardRecords:
    """The records of contiguous fp32 logits.

    Raises:
        DataError: a logit is not finite, or a position changes its winner more than 65,535 times.
    """
    crops, positions, _ = dense_BPC.shape
    room = 4 * crops * positions + 64
    while True:
        colours, palette = np.empty(crops, np.int64), np.empty(room + crops, np.uint16)
        count = np.empty((crops, positions), np.uint16)
        code, start = np.empty(room, np.uint16), np.empty(room, np.uint16)
        state, entries, changes = _search(dense_BPC, global_BC, colours, palette, count, code, start)
        if state == _NOT_FINITE:
            raise DataError("the teacher gave logits that are not finite; check its weights, or run it in fp32")
        if state == _TOO_MANY:
            raise DataError(
                f"the teacher's logits are equal up to rounding: more than {MAX_CHANGES:,} changes of the winner at a "
                "position; check its weights, or use --targets full"
            )
        if changes <= room:
            return HardRecords(colours, palette[:entries], count, code[:changes], start[:changes])
        room = changes


@jit
def _not_above(value: float) -> Any:
    """An fp32 number that is not above `value`."""
    rounded = np.float32(value)
    return np.nextafter(rounded, np.float32(-np.inf)) if np.float64(rounded) > value else rounded


@jit
def _winner_at(dense_K: Any, global_K: Any, n: int, k: int, tolerance: float, score_K: Any) -> Any:
    """The first class of the highest fp32 score at ratio k, and whether it leads by more than the tolerance."""
    r = np.float32(k) / np.float32(RATIO_STEPS)
    rest = np.float32(1) - r
    best = 0
    if n <= _FEW:
        highest, second = np.float32(-np.inf), np.float32(-np.inf)
        for c in range(n):
            score = dense_K[c] * r + global_K[c] * rest
            score_K[c] = score
            if score > highest:
                best, highest, second = c, score, highest
            elif score > second:
                second = score
        bound = np.float64(highest) - 2 * tolerance
        if n == 1 or np.float64(second) < bound:
            return best, True
    else:
        # As integers floats keep their order if those below zero are flipped. Adding zero makes -0 a +0.
        order_K = score_K.view(np.int32)
        most = np.int32(-0x80000000)
        for c in range(n):
            score_K[c] = (dense_K[c] * r + global_K[c] * rest) + np.float32(0)
        for c in range(n):
            bits = order_K[c]
            most = max(most, bits ^ ((bits >> 31) & np.int32(0x7FFFFFFF)))
        while (order_K[best] ^ ((order_K[best] >> 31) & np.int32(0x7FFFFFFF))) != most:
            best += 1
        bound = np.float64(_not_above(np.float64(score_K[best]) - 2 * tolerance))
        least = np.float32(bound)
        near = np.int32(0)
        for c in range(n):
            near += np.int32(score_K[c] >= least)
        if near == 1:
            return best, True
    # A computed score is off by less than half the tolerance: only classes this near need the exact look.
    r64 = np.float64(k) / RATIO_STEPS
    d, g = np.float64(dense_K[best]), np.float64(global_K[best])
    for c in range(n):
        if np.float64(score_K[c]) >= bound and (dense_K[c] != dense_K[best] or global_K[c] != global_K[best]):
            lead = (d - np.float64(dense_K[c])) * r64 + (g - np.float64(global_K[c])) * (1 - r64)
            if not lead > tolerance:
                return best, False
    return best, True


@jit
def _set(entry_7: Any, k0: int, w0: int, leads0: bool, k1: int, w1: int, leads1: bool, guess: int) -> None:
    entry_7[0], entry_7[1], entry_7[2] = k0, w0, leads0
    entry_7[3], entry_7[4], entry_7[5], entry_7[6] = k1, w1, leads1, guess


@jit
def _walk(
    dense_K: Any,
    global_K: Any,
    n: int,
    tolerance: float,
    score_K: Any,
    open_D7: Any,
    class_K: Any,
    starts: Any,
    winners: Any,
) -> int:
    """Write the changes of one position's winner in order; returns how many there are (or would be, with room).

    Open intervals lie on a stack, the leftmost on top: k, winner and lead at both ends, and how to split it.
    """
    first, first_leads = _winner_at(dense_K, global_K, n, 0, tolerance, score_K)
    last, last_leads = _winner_at(dense_K, global_K, n, RATIO_STEPS, tolerance, score_K)
    _set(open_D7[0], 0, first, first_leads, RATIO_STEPS, last, last_leads, 1)
    depth, now, changes = 1, first, 0
    while depth:
        depth -= 1
        k0, w0, leads0, k1 = open_D7[depth, 0], open_D7[depth, 1], open_D7[depth, 2], open_D7[depth, 3]
        w1, leads1, guess = open_D7[depth, 4], open_D7[depth, 5], open_D7[depth, 6]
        if k1 - k0 <= 1 or (w0 == w1 and leads0 and leads1):
            # Everything left of k0 is written, and inside there is nothing new.
            for k, w in ((k0, w0), (k1, w1)):
                if class_K[w] != class_K[now]:
                    if changes < len(starts):
                        starts[changes], winners[changes] = k - 1, class_K[w]
                    changes += 1
                    now = w
            continue
        middle = (k0 + k1) // 2
        # Every second split halves, so that splits are bounded whatever the lines are.
        if guess and w0 == w1 and leads0 != leads1:  # a lead that rounding can bridge grows with a few steps
            middle = k0 + _STEPS if leads1 else k1 - _STEPS
        elif guess and w0 != w1:
            d0, g0 = np.float64(dense_K[w0]), np.float64(global_K[w0])
            d1, g1 = np.float64(dense_K[w1]), np.float64(global_K[w1])
            rise = (d1 - g1) - (d0 - g0)
            if rise != 0:
                cross = np.floor((g0 - g1) / rise * RATIO_STEPS)
                if k0 <= cross < k1:
                    middle = np.int64(cross)
        m0 = min(max(middle, k0 + 1), k1 - 1)
        m1 = min(m0 + 1, k1 - 1)
        v0, in0 = _winner_at(dense_K, global_K, n, m0, tolerance, score_K)
        v1, in1 = v0, in0
        if m1 > m0:
            v1, in1 = _winner_at(dense_K, global_K, n, m1, tolerance, score_K)
        _set(open_D7[depth], m1, v1, in1, k1, w1, leads1, 1 - guess)
        _set(open_D7[depth + 1], m0, v0, in0, m1, v1, in1, 0)
        _set(open_D7[depth + 2], k0, w0, leads0, m0, v0, in0, 1 - guess)
        depth += 3
    return changes


@jit
def _largest(logits_N: Any) -> Any:
    """The largest magnitude of fp32 logits as float64; infinite or NaN if one of them is.

    The bits of a float without its sign order magnitudes, with infinity and NaN on top, and integers keep the
    processor's wide instructions in use.
    """
    bits_N = logits_N.view(np.int32)
    largest = np.int32(0)
    for i in range(len(bits_N)):
        largest = max(largest, bits_N[i] & np.int32(0x7FFFFFFF))
    return np.float64(np.array([largest], np.int32).view(np.float32)[0])


@jit
def _reaching(logits_C: Any, least: Any, class_K: Any) -> int:
    """Write the classes that reach the bound, in order; returns how many."""
    found, whole = 0, len(logits_C) // _BLOCK * _BLOCK
    for begin in range(0, whole, _BLOCK):
        hits = np.int32(0)
        for c in range(_BLOCK):  # a fixed number of turns, which compiles to wide instructions
            hits += np.int32(logits_C[begin + c] >= least)
        if hits:
            for c in range(begin, begin + _BLOCK):
                class_K[found] = c
                found += logits_C[c] >= least
    for c in range(whole, len(logits_C)):
        class_K[found] = c
        found += logits_C[c] >= least
    return found


@jit
def _united(class_K: Any, found: int, near_K: Any, near: int) -> int:
    """Merge two ascending lists into the first, which has room for all classes."""
    merged = np.empty(found + near, np.int64)
    i, j, n = 0, 0, 0
    while i < found or j < near:
        if j == near or (i < found and class_K[i] <= near_K[j]):
            if j < near and class_K[i] == near_K[j]:
                j += 1
            merged[n] = class_K[i]
            i += 1
        else:
            merged[n] = near_K[j]
            j += 1
        n += 1
    class_K[:n] = merged[:n]
    return n


@jit
def _not_behind(
    dense_C: Any,
    global_C: Any,
    top: int,
    best: int,
    tolerance: float,
    class_K: Any,
    found: int,
    dense_K: Any,
    global_K: Any,
) -> int:
    """Keep the classes that the winners of r = 0 (`top`) and r = 1 (`best`) do not exclude; returns how many.

    The higher of these two is a convex function of r with its bend where they cross, so a class behind it at both ends
    and at the bend is behind it everywhere.
    """
    g0, d1 = np.float64(global_C[top]), np.float64(dense_C[best])
    fall, rise = g0 - np.float64(global_C[best]), d1 - np.float64(dense_C[top])
    bend = fall / (fall + rise) if fall + rise > 0 else 0.0
    least = d1 * bend + np.float64(global_C[best]) * (1 - bend) - 2 * tolerance
    dense_least, global_least = _not_above(d1 - 2 * tolerance), _not_above(g0 - 2 * tolerance)
    n = 0
    for i in range(found):
        c = class_K[i]
        d, g = dense_C[c], global_C[c]
        class_K[n], dense_K[n], global_K[n] = c, d, g
        n += (d >= dense_least) | (g >= global_least) | (np.float64(d) * bend + np.float64(g) * (1 - bend) >= least)
    return n


@jit
def _search(
    dense_BPC: Any, global_BC: Any, colours_B: Any, palette_E: Any, count_BP: Any, code_M: Any, start_M: Any
) -> Any:
    """Fill in the lists of all crops: state, palette entries and changes (that there are, or would be, with room)."""
    crops, positions, classes = dense_BPC.shape
    class_K, near_K = np.empty(classes + 1, np.int64), np.empty(classes + 1, np.int64)
    dense_K, global_K, score_K = (
        np.empty(classes, np.float32),
        np.empty(classes, np.float32),
        np.empty(classes, np.float32),
    )
    open_D7 = np.empty((_DEPTH, 7), np.int64)
    slot_of, owner_of = np.empty(classes, np.int64), np.full(classes, -1, np.int64)
    starts, winners = np.empty(MAX_CHANGES, np.int64), np.empty(MAX_CHANGES, np.int64)
    entries, changes = 0, 0
    for b in range(crops):
        global_C = global_BC[b]
        global_largest, dense_largest = _largest(global_C), _largest(dense_BPC[b].reshape(-1))
        if not (global_largest < np.inf and dense_largest < np.inf):
            return _NOT_FINITE, 0, 0
        tolerance = max(global_largest, dense_largest) * _TOLERANCE + _TINIEST
        top = 0
        for c in range(1, classes):
            if global_C[c] > global_C[top]:
                top = c
        global_least = _not_above(np.float64(global_C[top]) - 2 * tolerance)
        near = _reaching(global_C, global_least, near_K)
        slot_of[top], owner_of[top] = 0, b
        if entries < len(palette_E):
            palette_E[entries] = top
        colours = 1
        for p in range(positions):
            dense_C = dense_BPC[b, p]
            dense_least = _not_above(np.float64(dense_C[top]) - 2 * tolerance)
            found = _reaching(dense_C, dense_least, class_K)
            if near > 1:
                found = _united(class_K, found, near_K, near)
            count_BP[b, p] = 0
            if found == 1:
                continue
            best = class_K[0]
            for i in range(1, found):
                if dense_C[class_K[i]] > dense_C[best]:
                    best = class_K[i]
            n = _not_behind(dense_C, global_C, top, best, tolerance, class_K, found, dense_K, global_K)
            mine = _walk(dense_K, global_K, n, tolerance, score_K, open_D7, class_K, starts, winners)
            if mine > MAX_CHANGES:
                return _TOO_MANY, 0, 0
            count_BP[b, p] = mine
            for i in range(mine):
                winner = winners[i]
                if owner_of[winner] != b:
                    slot_of[winner], owner_of[winner] = colours, b
                    if entries + colours < len(palette_E):
                        palette_E[entries + colours] = winner
                    colours += 1
                if changes < len(code_M):
                    code_M[changes], start_M[changes] = slot_of[winner], starts[i]
                changes += 1
        colours_B[b] = colours
        entries += colours
    return _DONE, entries, changes
