"""Random access to parts of files that threads, forked workers and spawned workers can share."""

from __future__ import annotations

import os
import weakref
from pathlib import Path

from cskd_pipeline.errors import DataError

_MOST_OPEN = 256
_CHANGED = "the data changed after it was indexed: restore it, or index it again"


class ByteRanges:
    """Reads byte ranges by `pread`, which moves no file offset: nothing is shared that could be disturbed.

    Files are opened at their first use in a process and stay open, up to a bound that leaves room below the
    usual limit of 1,024; those beyond it are opened for every read.
    """

    def __init__(self) -> None:
        self._open: dict[Path, int] = {}
        weakref.finalize(self, _close_all, self._open)

    def read(self, file: Path, offset: int, length: int) -> bytes:
        """`length` bytes of `file` from `offset`.

        Raises:
            DataError: the file is gone or cannot be read, or it ends before.
        """
        try:
            descriptor = self._open.get(file)
            if descriptor is not None:
                data = os.pread(descriptor, length, offset)
            elif len(self._open) < _MOST_OPEN:
                descriptor = self._kept(file)
                data = os.pread(descriptor, length, offset)
            else:
                with file.open("rb") as opened:
                    data = os.pread(opened.fileno(), length, offset)
        except FileNotFoundError as error:
            raise DataError(f"{file} is gone; {_CHANGED}") from error
        except OSError as error:
            raise DataError(f"{file} cannot be read: {error.strerror or error}") from error
        if len(data) != length:
            raise DataError(f"{file} gave {len(data)} of {length} bytes at {offset}; {_CHANGED}")
        return data

    def _kept(self, file: Path) -> int:
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
        kept = self._open.setdefault(file, descriptor)
        if kept != descriptor:
            os.close(descriptor)  # another thread was quicker
        return kept


def read_whole(file: Path, length: int) -> bytes:
    """The contents of `file`, which must be `length` bytes long.

    Raises:
        DataError: the file is gone, cannot be read, or has another length.
    """
    try:
        data = file.read_bytes()
    except FileNotFoundError as error:
        raise DataError(f"{file} is gone; {_CHANGED}") from error
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror or error}") from error
    if len(data) != length:
        raise DataError(f"{file} has {len(data)} bytes, {length} when indexed; {_CHANGED}")
    return data


def _close_all(descriptors: dict[Path, int]) -> None:
    for descriptor in descriptors.values():
        os.close(descriptor)
