"""Files of a distant storage, fetched once and then read from a local folder."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from cskd_pipeline.runtime.process_name import has_ended, process_name
from cskd_pipeline.storage.folder import FolderStorage
from cskd_pipeline.storage.storage import Storage, StoredFile

_WHOLE = 1 << 31


class CachedStorage:
    """Another storage's files. What is read is kept whole in a folder until it is forgotten.

    The folder is this process's alone. What killed processes left beside it is removed.
    """

    def __init__(self, distant: Storage, beside: Path) -> None:
        """Files of `distant`, kept in a new folder below `beside`."""
        self._distant = distant
        for left in beside.glob("files-*"):
            if has_ended(left.name.removeprefix("files-")):
                shutil.rmtree(left, ignore_errors=True)
        self._folder = beside / f"files-{process_name()}"
        self._local = FolderStorage(self._folder)

    @property
    def address(self) -> str:
        """That of the distant storage."""
        return self._distant.address

    def at(self, name: str) -> str:
        """Where the file lies in the distant storage."""
        return self._distant.at(name)

    def read(self, name: str, *, limit: int) -> bytes:
        """See `Storage`."""
        if self._local.size(name) is None:
            content = self._distant.read(name, limit=limit)
            self._local.write(name, content, durable=False)
            return content
        return self._local.read(name, limit=limit)

    def read_ranges(self, name: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """See `Storage`; fetches the whole file at the first time."""
        if self._local.size(name) is None:
            self._local.write(name, self._distant.read(name, limit=_WHOLE), durable=False)
        return self._local.read_ranges(name, ranges)

    def size(self, name: str) -> int | None:
        """See `Storage`."""
        return self._distant.size(name)

    def write(self, name: str, content: bytes, *, durable: bool = True) -> None:
        """See `Storage`; a local copy is forgotten."""
        self._local.delete(name)
        self._distant.write(name, content, durable=durable)

    def create(self, name: str, content: bytes, *, durable: bool = True) -> bool:
        """See `Storage`; a local copy is forgotten."""
        self._local.delete(name)
        return self._distant.create(name, content, durable=durable)

    def delete(self, name: str, *, durable: bool = False) -> None:
        """See `Storage`; a local copy is forgotten."""
        self._local.delete(name)
        self._distant.delete(name, durable=durable)

    def files(self, folder: str = "", *, deep: bool = True) -> Iterator[StoredFile]:
        """See `Storage`."""
        return self._distant.files(folder, deep=deep)

    def folders(self, folder: str = "") -> list[str]:
        """See `Storage`."""
        return self._distant.folders(folder)

    def sweep(self) -> None:
        """Nothing."""

    def forget(self, *, but: Collection[str] = ()) -> None:
        """Remove all local copies but those in these top folders."""
        for folder in self._local.folders():
            if folder not in but:
                shutil.rmtree(self._folder / folder, ignore_errors=True)
        if not but:
            shutil.rmtree(self._folder, ignore_errors=True)
