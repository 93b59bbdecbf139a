"""Atomic writes: after a crash or a full disk, and to concurrent readers, a file is entirely old or entirely new."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from cskd_pipeline.errors import DataError, RetryError


@contextlib.contextmanager
def writing(what: Path | str, *, remedy: str = "make room or permit writing") -> Iterator[None]:
    """Turn the operating system's refusals while writing `what` into a `RetryError` that names it and the remedy."""
    try:
        yield
    except OSError as error:
        raise RetryError(
            f"cannot write {what} ({reason(error)}); nothing that was there is lost: {remedy}, then run the same "
            "command again (training: with --resume)"
        ) from error


@contextlib.contextmanager
def reading(what: Path | str) -> Iterator[None]:
    """As `writing`, while reading; that there is no such file is for the caller to judge.

    Raises:
        DataError: a folder is where a file should be, or the other way round.
        RetryError: anything else.
    """
    try:
        yield
    except FileNotFoundError:
        raise
    except (IsADirectoryError, NotADirectoryError) as error:
        raise DataError(f"{what} cannot be read: {reason(error)}") from error
    except OSError as error:
        raise RetryError(
            f"cannot read {what} ({reason(error)}); see to the storage and its permissions, then run the same command "
            "again"
        ) from error


def reason(error: OSError) -> str:
    """The operating system's message, with the remedy if one of its limits was reached."""
    text = error.strerror or str(error)
    if error.errno not in (errno.EMFILE, errno.ENFILE):
        return text
    return f"{text}: at most {resource.getrlimit(resource.RLIMIT_NOFILE)[0]} are allowed, raise that with ulimit -n"


def write_atomic(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Replace the file at `path` by what `write` writes, durably; on any failure it stays as it was.

    Args:
        path: file to make or replace; its folder must exist.
        write: fills the open temporary file in the same folder.

    Raises:
        RetryError: the storage is full, read-only or out of reach.
    """
    # One writer per file, so a fixed name: what a killed process left behind is overwritten, not collected.
    with writing(path), half_written(path.with_name(path.name + ".writing"), write) as temporary:
        temporary.replace(path)
        sync(path.parent)


@contextlib.contextmanager
def half_written(temporary: Path, write: Callable[[BinaryIO], object], *, durable: bool = True) -> Iterator[Path]:
    """A temporary file filled by `write`, durable if asked; removed unless it is renamed."""
    try:
        with temporary.open("wb") as file:
            write(file)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        yield temporary
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Flush a file's content, or a folder's entries, to stable storage."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
