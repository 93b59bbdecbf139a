"""Training state in one file of tensors and plain values; reading it runs no code from the file."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch

from cskd_pipeline.errors import DataError, first_line
from cskd_pipeline.storage.durable import write_atomic

STATE_VERSION = 1


def save_state(path: Path, state: Mapping[str, Any]) -> None:
    """Replace `path` with `state`, a mapping of tensors, numbers, strings, None, lists and dicts of these.

    Raises:
        RetryError: the storage is full, read-only or unreachable; the old file is intact.
    """

    def write(file: BinaryIO) -> None:
        guarded = _ErrorKeepingFile(file)
        try:
            torch.save({"state_version": STATE_VERSION, **state}, guarded)  # type: ignore[arg-type]
        except Exception as error:
            # torch turns an error of the underlying file into a RuntimeError that hides the cause.
            raise (guarded.error or error) from None

    write_atomic(path, write)


def load_state(path: Path) -> dict[str, Any]:
    """What `save_state` wrote, with tensors on the CPU.

    Raises:
        DataError: the file is missing, damaged or of another version.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    # torch reports damage as RuntimeError, EOFError, UnpicklingError or an error of the zip reader.
    except (RuntimeError, EOFError, pickle.UnpicklingError, OSError, ValueError, KeyError) as error:
        reason = first_line(error)
        raise DataError(f"the checkpoint {path} is damaged ({reason}); start again in another run folder") from error
    version = state.get("state_version") if isinstance(state, dict) else None
    if version != STATE_VERSION:
        raise DataError(f"the checkpoint {path} has version {version}, this release reads {STATE_VERSION}")
    return {str(key): value for key, value in state.items() if key != "state_version"}


class _ErrorKeepingFile:
    """A writable file that remembers the last error it raised."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
        try:
            return self._file.write(data)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        self._file.flush()
