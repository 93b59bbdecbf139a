"""Compiling inner loops with numba, where it is installed (the extra "fast")."""

from __future__ import annotations

import functools
import importlib
from types import ModuleType
from typing import Any


def jit(function: Any) -> Any:
    """The function, compiled: it releases the GIL, and is kept compiled for later processes.

    Nothing is reordered or fused: floating-point results are those of the operations as they are written.

    Raises:
        ImportError: numba is not installed, or does not fit the installed numpy.
    """
    import numba

    try:
        return numba.njit(cache=True, nogil=True)(function)
    except RuntimeError:  # there is no folder to keep compiled code in: compile in every process
        return numba.njit(nogil=True)(function)


@functools.cache
def compiled(module: str) -> ModuleType | None:
    """The module, whose functions are compiled when it is imported; None where that is not possible."""
    try:
        return importlib.import_module(module)
    except ImportError:
        return None
