"""Random access to parts of local files that threads, forked workers and spawned workers can share."""

from __future__ import annotations

import contextlib
import os
import resource
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path

from cskd_pipeline.data.places import CHANGED, Place
from cskd_pipeline.errors import DataError
from cskd_pipeline.storage.durable import reading
from cskd_pipeline.storage.names import native

_MOST_OPEN = 256


def _may_keep_open() -> int:
    """How many files a reader keeps open: a quarter of what the process may, which is raised where that can be."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 4 * _MOST_OPEN
    if 0 <= soft < wanted and (soft < hard or hard < 0):
        soft = wanted if hard < 0 else min(wanted, hard)
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return _MOST_OPEN if soft < 0 else min(_MOST_OPEN, soft // 4)


class ByteRanges:
    """Reads byte ranges by `pread`, which moves no file offset: nothing is shared that could be disturbed.

    Files are opened at their first use in a process and stay open, up to a bound that leaves room for others; those
    beyond it are opened for every read.
    """

    def __init__(self, root: Path) -> None:
        """Files below `root`."""
        self._root = root
        self._open: dict[str, int] = {}
        self._most = _may_keep_open()
        weakref.finalize(self, _close_all, self._open)

    def read(self, place: Place) -> bytes:
        """See `ImageReader`."""
        name, offset, length = place
        file = self._root / native(name)
        try:
            with reading(file):
                descriptor = self._open.get(name)
                if descriptor is None and len(self._open) < self._most:
                    descriptor = self._kept(name, file)
                if descriptor is not None:
                    data = os.pread(descriptor, length, offset)
                else:
                    with file.open("rb") as opened:
                        data = os.pread(opened.fileno(), length, offset)
        except FileNotFoundError as error:
            raise DataError(f"{file} is gone; {CHANGED}") from error
        if len(data) != length:
            raise DataError(f"{file} gave {len(data)} of {length} bytes at {offset}; {CHANGED}")
        return data

    def read_all(self, places: Sequence[Place]) -> Iterator[bytes]:
        """See `ImageReader`; one after another."""
        return map(self.read, places)

    def _kept(self, name: str, file: Path) -> int:
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
        kept = self._open.setdefault(name, descriptor)
        if kept != descriptor:
            os.close(descriptor)  # another thread was quicker
        return kept


class WholeFiles:
    """Reads files that each hold one image and nothing else."""

    def __init__(self, root: Path) -> None:
        """Files below `root`."""
        self._root = root

    def read(self, place: Place) -> bytes:
        """See `ImageReader`; also an error where the file is longer."""
        file = self._root / native(place.file)
        try:
            with reading(file):
                data = file.read_bytes()
        except FileNotFoundError as error:
            raise DataError(f"{file} is gone; {CHANGED}") from error
        if len(data) != place.length:
            raise DataError(f"{file} has {len(data)} bytes, {place.length} when indexed; {CHANGED}")
        return data

    def read_all(self, places: Sequence[Place]) -> Iterator[bytes]:
        """See `ImageReader`; one after another."""
        return map(self.read, places)


def _close_all(descriptors: dict[str, int]) -> None:
    for descriptor in descriptors.values():
        os.close(descriptor)
