"""Standard input, output and error, whatever the caller made of them.

A closed one is opened on the null device: else the next file to be opened would get its number, and what is meant for
the terminal be written into it. A line of progress that cannot be written is lost and the work continues; a result that
cannot be written is an error.
"""

from __future__ import annotations

import io
import os
import select
import sys
from typing import Any

from cskd_pipeline.errors import RetryError


class OutputError(RetryError):
    """The result could not be written to standard output."""


def settle_standard_streams() -> None:
    """See above; streams that a test or a notebook has put in place are left alone."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free, which is this one
    if sys.stdin is None:
        sys.stdin = open(0, closefd=False)  # noqa: SIM115
    if sys.stdout is sys.__stdout__:
        sys.stdout = _stream(_Result(1, "w", closefd=False), sys.stdout, errors="strict")
    if sys.stderr is sys.__stderr__:
        sys.stderr = _stream(_Progress(2, "w", closefd=False), sys.stderr, errors="backslashreplace")


def _stream(raw: io.FileIO, old: Any, *, errors: str) -> io.TextIOWrapper:
    encoding = getattr(old, "encoding", None) or "utf-8"
    errors = getattr(old, "errors", None) or errors
    return io.TextIOWrapper(io.BufferedWriter(raw), encoding=encoding, errors=errors, line_buffering=True)


class _Progress(io.FileIO):
    def write(self, data: Any) -> int:
        try:
            return super().write(data) or len(data)  # None: a pipe that does not block is full
        except OSError:
            return len(data)


class _Result(io.FileIO):
    _failed = False

    def write(self, data: Any) -> int:
        if self._failed:  # said once: what is left in the buffer is flushed again at exit
            return len(data)
        try:
            while (written := super().write(data)) is None:  # a pipe that does not block is full
                select.select([], [self], [])
            return written
        except OSError as error:
            self._failed = True
            raise OutputError(
                f"the result cannot be written to standard output ({error.strerror}); what was done is kept"
            ) from error
