"""What makes things faster where it is installed (the extra "fast"), and changes no result."""

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
def optional(module: str) -> ModuleType | None:
    """The module; None where it, or what it needs, is not installed or does not fit what is."""
    try:
        return importlib.import_module(module)
    except ImportError:
        return None
