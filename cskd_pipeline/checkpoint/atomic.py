"""Replacing a file so that a reader, or a crash, sees the old content or the new, never a part."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from cskd_pipeline.errors import RetryError


def write_atomic(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """The file at `path` is what `write` wrote, on stable storage; on any failure it is what it was before.

    Args:
        path: file to make or replace; its folder must exist.
        write: fills the open temporary file in the same folder.

    Raises:
        RetryError: the storage is full, read-only or out of reach.
    """
    # One writer per file, so a fixed name: what a killed process left behind is overwritten, not collected.
    temporary = path.with_name(path.name + ".writing")
    try:
        try:
            with temporary.open("wb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
        _sync_folder(path.parent)
    except OSError as error:
        reason = error.strerror or str(error)
        raise RetryError(f"cannot write {path} ({reason}); what was there is intact: make room and resume") from error


def _sync_folder(folder: Path) -> None:
    """Make the rename itself durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
