"""A seekable file object over a stored file, read by byte ranges."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, BinaryIO

from cskd_pipeline.storage.storage import Storage, StoredFile

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

LEAST, MOST = 128 << 10, 4 << 20
"""Bytes of the first request after a long jump, and of the largest of many in a row."""

_NEAR = 1 << 20
"""A jump over fewer bytes reads through them: skipping would save less time than another request costs."""


def open_stored(storage: Storage, file: StoredFile) -> BinaryIO:
    """A binary file over the bytes of `file`. Reading raises as `Storage.read_ranges`."""
    return io.BufferedReader(_Ranges(storage, file), buffer_size=MOST)


class _Ranges(io.RawIOBase):
    """Answers a read with as much as one request should fetch: twice as much each time, until there is a long jump."""

    def __init__(self, storage: Storage, file: StoredFile) -> None:
        self._storage, self._file = storage, file
        self._at, self._read_to, self._ahead = 0, 0, LEAST // 2

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        self._at = offset + (0, self._at, self._file.size)[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        into = memoryview(buffer).cast("B")
        on = 0 <= self._at - self._read_to <= _NEAR
        self._ahead = min(self._ahead * 2, MOST) if on else LEAST
        count = max(0, min(len(into), self._ahead, self._file.size - self._at))
        if count:
            into[:count] = self._storage.read_ranges(self._file.name, [(self._at, self._at + count)])[0]
        self._at = self._read_to = self._at + count
        return count
