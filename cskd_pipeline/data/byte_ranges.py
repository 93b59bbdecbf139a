"""Random access to parts of local files that threads, forked workers and spawned workers can share."""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path

from cskd_pipeline.data.places import CHANGED, Place
from cskd_pipeline.errors import DataError

_MOST_OPEN = 256


class ByteRanges:
    """Reads byte ranges by `pread`, which moves no file offset: nothing is shared that could be disturbed.

    Files are opened at their first use in a process and stay open, up to a bound that leaves room below the
    usual limit of 1,024; those beyond it are opened for every read.
    """

    def __init__(self, root: Path) -> None:
        """Files below `root`."""
        self._root = root
        self._open: dict[str, int] = {}
        weakref.finalize(self, _close_all, self._open)

    def read(self, place: Place) -> bytes:
        """See `ImageReader`."""
        name, offset, length = place
        try:
            descriptor = self._open.get(name)
            if descriptor is not None:
                data = os.pread(descriptor, length, offset)
            elif len(self._open) < _MOST_OPEN:
                descriptor = self._kept(name)
                data = os.pread(descriptor, length, offset)
            else:
                with (self._root / name).open("rb") as opened:
                    data = os.pread(opened.fileno(), length, offset)
        except FileNotFoundError as error:
            raise DataError(f"{self._root / name} is gone; {CHANGED}") from error
        except OSError as error:
            raise DataError(f"{self._root / name} cannot be read: {error.strerror or error}") from error
        if len(data) != length:
            raise DataError(f"{self._root / name} gave {len(data)} of {length} bytes at {offset}; {CHANGED}")
        return data

    def read_all(self, places: Sequence[Place]) -> Iterator[bytes]:
        """See `ImageReader`; one after another."""
        return map(self.read, places)

    def _kept(self, name: str) -> int:
        descriptor = os.open(self._root / name, os.O_RDONLY | os.O_CLOEXEC)
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
        file = self._root / place.file
        try:
            data = file.read_bytes()
        except FileNotFoundError as error:
            raise DataError(f"{file} is gone; {CHANGED}") from error
        except OSError as error:
            raise DataError(f"{file} cannot be read: {error.strerror or error}") from error
        if len(data) != place.length:
            raise DataError(f"{file} has {len(data)} bytes, {place.length} when indexed; {CHANGED}")
        return data

    def read_all(self, places: Sequence[Place]) -> Iterator[bytes]:
        """See `ImageReader`; one after another."""
        return map(self.read, places)


def _close_all(descriptors: dict[str, int]) -> None:
    for descriptor in descriptors.values():
        os.close(descriptor)
