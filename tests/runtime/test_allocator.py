"""Freed memory stays with the process where glibc can be told so, unless the user says otherwise."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from cskd_pipeline.errors import UsageError
from cskd_pipeline.runtime import allocator

BLOCK = 100 << 20
PROGRAM = f"""
import ctypes, resource, threading
from cskd_pipeline.runtime.allocator import keep_freed_memory

def touch_again():
    libc = ctypes.CDLL(None)
    libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
    faults = []
    for _ in range(3):
        block = libc.malloc({BLOCK})
        ctypes.memset(block, 1, {BLOCK})
        libc.free(block)
        faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
    print(faults[-1] - faults[0])

print(keep_freed_memory())
touch_again()
thread = threading.Thread(target=touch_again)
thread.start()
thread.join()
"""


@pytest.fixture(autouse=True)
def untuned(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CSKD_ALLOCATOR", "GLIBC_TUNABLES", *allocator._OWN_SETTINGS):
        monkeypatch.delenv(name, raising=False)


def test_a_large_block_is_used_again_without_the_kernel_by_every_thread() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, text=True, check=True)
    kept, *faults = done.stdout.split()
    assert kept == str(allocator._has_glibc()) and len(faults) == 2
    if kept == "True":
        assert max(map(int, faults)) < 2 * BLOCK / os.sysconf("SC_PAGE_SIZE") / 100


@pytest.mark.parametrize(
    "choice, variables",
    [
        ("system", {}),
        (None, {"CSKD_ALLOCATOR": "system"}),
        ("system", {"CSKD_ALLOCATOR": "keep"}),
        (None, {"MALLOC_ARENA_MAX": "2"}),
        ("keep", {"GLIBC_TUNABLES": "glibc.malloc.arena_max=3"}),
    ],
)
def test_it_is_left_alone_where_told_so_or_tuned(
    choice: str | None, variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert allocator.keep_freed_memory(choice) is False


def test_without_glibc_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(name: str) -> str:
        raise ValueError(name)

    for answer in (unknown, lambda name: ""):
        monkeypatch.setattr(os, "confstr", answer)
        assert allocator.keep_freed_memory("keep") is False


def test_another_choice_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CSKD_ALLOCATOR", "jemalloc")
    with pytest.raises(UsageError, match="must be keep or system, found 'jemalloc'"):
        allocator.keep_freed_memory()
