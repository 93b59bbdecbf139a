"""Errors meant for the person at the keyboard: one line that says what, the value found and what to do.

Each class carries the exit code that the command line returns for it. Anything else that escapes is a bug
(exit code 1).
"""

from __future__ import annotations

from collections.abc import Iterable


class CskdError(Exception):
    """Base of every error that a user can cause and mend.

    Attributes:
        details: lines that its sentence leaves out, such as all of the keys of which it names the first; the command
            line prints them with --verbose.
    """

    exit_code = 1

    def __init__(self, message: str = "", *, details: Iterable[str] = ()) -> None:
        super().__init__(message)
        self.details = tuple(details)


class UsageError(CskdError, ValueError):
    """The request itself is wrong: an unknown name, a malformed option, two options that exclude each other."""

    exit_code = 2


class DataError(CskdError):
    """Something on disk is missing, broken or damaged, or a verification failed."""

    exit_code = 3


class MismatchError(CskdError):
    """A store (or run folder) and the request that uses it do not belong together; both values are shown."""

    exit_code = 4


class RetryError(CskdError):
    """The same command may succeed later: storage is full or read-only, or another process is at work."""

    exit_code = 75


class StoppedError(CskdError):
    """The work was interrupted cleanly; what was done is kept and the same command resumes it."""

    exit_code = 75


def first_line(error: BaseException) -> str:
    """The first line of what an error says, or its kind where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def nearest(name: str, known: list[str], *, count: int = 3) -> str:
    """A phrase such as " (did you mean 'a', 'b'?)" naming the known names most like `name`, or ""."""
    import difflib

    close = difflib.get_close_matches(name, known, n=count, cutoff=0.5)
    return f" (did you mean {', '.join(repr(c) for c in close)}?)" if close else ""
