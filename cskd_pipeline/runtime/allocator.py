"""Memory that is freed stays with the process, to be used again without the kernel.

glibc gives every large block back to the system as soon as it is freed. A network on a CPU then has the pages of its
activations made and zeroed by the kernel again in every layer, which takes about as long as the network itself.
"""

from __future__ import annotations

import contextlib
import ctypes
import os

from cskd_pipeline.errors import UsageError

VARIABLE = "CSKD_ALLOCATOR"
"""Environment variable: "keep" (the default) or "system"."""

_CHOICES = ("keep", "system")

# Parameters of mallopt(3), by their numbers in malloc.h.
_SETTINGS = (
    (-8, 1),  # M_ARENA_MAX: threads share one heap; one of their own could not hold a block above 64 MiB
    (-4, 0),  # M_MMAP_MAX: large blocks come from the heap too, not from mappings that end with them
    (-1, -1),  # M_TRIM_THRESHOLD: the heap never shrinks
)
_OWN_SETTINGS = ("MALLOC_ARENA_MAX", "MALLOC_MMAP_MAX_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_")


def keep_freed_memory(choice: str | None = None) -> bool:
    """Have this process, and those it forks, keep freed memory from now on; returns whether they do.

    Call it before the first thread starts: a thread stays with the heap that it began with. The process then holds its
    peak of memory until it ends. Nothing changes without glibc, or where the environment tunes glibc's malloc already.

    `choice` is "keep" or "system", which leaves all as it is (else UsageError); by default what $CSKD_ALLOCATOR says,
    else "keep".
    """
    if choice is None:
        choice = os.environ.get(VARIABLE) or "keep"
    if choice not in _CHOICES:
        raise UsageError(f"the allocator ({VARIABLE}) must be keep or system, found {choice!r}")
    if choice == "system" or not _has_glibc() or _is_tuned():
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return all(mallopt(parameter, value) == 1 for parameter, value in _SETTINGS)


def _has_glibc() -> bool:
    with contextlib.suppress(ValueError, OSError):  # a system that has another, or none of these names
        return (os.confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc")
    return False


def _is_tuned() -> bool:
    return "glibc.malloc." in os.environ.get("GLIBC_TUNABLES", "") or any(name in os.environ for name in _OWN_SETTINGS)
