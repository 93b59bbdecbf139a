"""The operations on files that a store needs; folders on disk and buckets implement them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol


class StoredFile(NamedTuple):
    """One entry of a listing.

    Attributes:
        name: relative to the storage's address.
        size: in bytes.
        version: changes whenever the file is rewritten: its e-tag, or its modification time.
    """

    name: str
    size: int
    version: str = ""


class Storage(Protocol):
    """A tree of files by name. Names are relative and use "/"; no part is empty, "." or "..".

    Every method raises `RetryError` when the storage refuses or cannot be reached. Threads may share an instance; a
    forked process must open its own.
    """

    @property
    def address(self) -> str:
        """The absolute path or URL that `open_storage` takes."""

    def free_bytes(self) -> int | None:
        """Room for further files; None where that is not known, as in object storage."""

    def at(self, name: str) -> str:
        """The path or URL of a file, for messages."""

    def read(self, name: str, *, limit: int) -> bytes:
        """Read a whole file of at most `limit` bytes.

        Raises:
            FileNotFoundError: there is no such file.
            DataError: it is larger, or not a regular file.
        """

    def read_ranges(self, name: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Read the bytes [start, stop) of each range.

        Raises:
            FileNotFoundError: there is no such file.
            DataError: a range reaches beyond its end, or it is not a regular file.
        """

    def size(self, name: str) -> int | None:
        """The size of a file in bytes, or None if it does not exist."""

    def write(self, name: str, content: bytes, *, durable: bool = True) -> None:
        """Write or replace a file atomically: a concurrent reader sees all of the old content or all of the new.

        Args:
            name: the file.
            content: its whole content.
            durable: return only once the file would survive a power failure.
        """

    def create(self, name: str, content: bytes, *, durable: bool = True) -> bool:
        """Like `write`, but only if the file does not exist. Of concurrent callers exactly one gets True."""

    def delete(self, name: str, *, durable: bool = False) -> None:
        """Delete a file if it exists; with `durable`, it stays deleted after a power failure."""

    def files(self, folder: str = "", *, deep: bool = True) -> Iterator[StoredFile]:
        """List the files below `folder`, sorted by name; a folder that does not exist has none.

        Args:
            folder: the folder, "" for the root.
            deep: include subfolders at any depth.
        """

    def folders(self, folder: str = "") -> list[str]:
        """The names of the folders directly in `folder`, sorted; a folder that does not exist has none."""

    def sweep(self) -> None:
        """Remove half-written files of writers that are known to have ended."""
