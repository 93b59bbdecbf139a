"""Loops over arrays, compiled by numba.

Importing numba takes most of a second: modules of compiled loops are imported where they are needed, and looking at a
store needs none of them.
"""

from __future__ import annotations

from typing import Any

import numba


def jit(function: Any) -> Any:
    """The function, compiled: it releases the GIL, and is kept compiled for later processes.

    Nothing is reordered or fused: floating-point results are those of the operations as they are written.
    """
    try:
        return numba.njit(cache=True, nogil=True)(function)
    except RuntimeError:  # there is no folder to keep compiled code in: compile in every process
        return numba.njit(nogil=True)(function)
