"""Files of decoded labels that the processes of a node share, and who may touch them.

Every table has a lock file. Who decodes holds it exclusively; who uses the table holds it shared; who finds it free
may delete the table. Locks are `flock`s: they vanish with the process, however it ends, so what a killed process left
behind is free for whoever comes next. A table that nobody holds is never used again: after a power cut its content
may be anything.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

LOCK, TABLE, PARTIAL = ".lock", ".npy", ".partial"


class TableFile:
    """One table's files in a scratch folder, and this process's lock on them."""

    def __init__(self, folder: Path, name: str) -> None:
        """The table called `name`, not locked."""
        self.name = name
        self.path, self.partial = folder / (name + TABLE), folder / (name + PARTIAL)
        self._lock_path = folder / (name + LOCK)
        self._descriptor = -1

    @property
    def descriptor(self) -> int:
        """The lock, held by everyone who inherits this descriptor."""
        assert self._descriptor >= 0, "the table is not locked"
        return self._descriptor

    def lock(self, *, shared: bool) -> bool:
        """Whether the table is now locked by this process; False where others hold it. Never waits."""
        while True:
            descriptor = os.open(self._lock_path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
            if not _flock(descriptor, fcntl.LOCK_SH if shared else fcntl.LOCK_EX):
                os.close(descriptor)
                return False
            self._descriptor = descriptor
            if self._in_place():
                return True
            self.unlock()  # deleted between opening and locking

    def open(self) -> NDArray[Any] | None:
        """The table, mapped; None where it is not there (any more). It must be locked shared."""
        if not self._in_place():
            return None
        try:
            table: NDArray[Any] = np.load(self.path, mmap_mode="r").view(np.ndarray)
        except FileNotFoundError:
            return None
        return table

    def clear(self) -> None:
        """Remove the table and what was to become one. It must be locked exclusively."""
        for path in (self.partial, self.path):
            with contextlib.suppress(FileNotFoundError):
                # Workers forked from a user keep the file mapped as long as they live; cut, it takes no memory.
                os.truncate(path, 0)
                path.unlink()

    def delete(self) -> None:
        """Remove all files, the lock last. It must be locked exclusively."""
        self.clear()
        if self._in_place():
            self._lock_path.unlink()

    def release(self) -> None:
        """Give up the lock; delete the table if nobody else holds one. No array of `open` may be used any more."""
        if _flock(self.descriptor, fcntl.LOCK_EX):
            self.delete()
        self.unlock()

    def unlock(self) -> None:
        """Give up the lock and leave the files."""
        # Closing alone would leave the lock with workers forked meanwhile.
        fcntl.flock(self.descriptor, fcntl.LOCK_UN)
        os.close(self._descriptor)
        self._descriptor = -1

    def _in_place(self) -> bool:
        """Whether what is locked is still the table's lock file."""
        try:
            return os.path.samestat(os.fstat(self.descriptor), self._lock_path.stat())
        except FileNotFoundError:
            return False


def sweep(folder: Path) -> None:
    """Delete every table of the folder that nobody holds."""
    with contextlib.suppress(FileNotFoundError):  # the folder itself was tidied away
        for name in sorted({path.stem for path in folder.iterdir() if path.suffix in (LOCK, TABLE, PARTIAL)}):
            file = TableFile(folder, name)
            if file.lock(shared=False):
                file.delete()
                file.unlock()


def _flock(descriptor: int, how: int) -> bool:
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
