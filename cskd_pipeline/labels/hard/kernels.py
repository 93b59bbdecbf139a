"""Compiled passes over hard records: a check of their form, and the winners at one ratio."""

from __future__ import annotations

from typing import Any

import numpy as np

from cskd_pipeline.runtime.compiled import jit


@jit
def first_fault(colours_n: Any, palette_E: Any, count_nP: Any, code_M: Any, start_M: Any, classes: int) -> int:
    """1 + the index in `records.FAULTS` of the first fault found; 0 if an encoder could have written the records."""
    owner_of = np.full(1 << 16, -1, np.int64)
    entry, change = 0, 0
    for crop in range(len(colours_n)):
        for slot in range(colours_n[crop]):
            class_ = palette_E[entry + slot]
            if class_ >= classes:
                return 1
            if owner_of[class_] == crop:
                return 2
            owner_of[class_] = crop
        entry += colours_n[crop]
        used = 1
        for p in range(count_nP.shape[1]):
            now, since = np.int64(0), np.int64(-1)
            for _ in range(count_nP[crop, p]):
                code, start = np.int64(code_M[change]), np.int64(start_M[change])
                if code > used:
                    return 3
                if code == used:
                    used += 1
                if code == now:
                    return 5
                if start <= since:
                    return 6
                now, since = code, start
                change += 1
        if used != colours_n[crop]:
            return 4
    return 0


@jit
def fill(
    colours_n: Any, palette_E: Any, count_nP: Any, code_M: Any, start_M: Any, ratio_steps: int, table: Any
) -> None:
    """Fill `table`, uint16 [n, 1 + P]: the class that wins globally, then at every position, at this ratio."""
    entry, change = 0, 0
    for crop in range(len(colours_n)):
        table[crop, 0] = palette_E[entry]
        for p in range(count_nP.shape[1]):
            slot = 0
            for _ in range(count_nP[crop, p]):
                if start_M[change] < ratio_steps:
                    slot = code_M[change]
                change += 1
            table[crop, 1 + p] = palette_E[entry + slot]
        entry += colours_n[crop]
