"""What the project asks of a place that keeps files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol


class StoredFile(NamedTuple):
    """A file as a listing shows it.

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

    All methods raise `RetryError` where the storage refuses or is out of reach. Any number of threads may use one, but
    a process must not use one that it inherited by a fork.
    """

    @property
    def address(self) -> str:
        """What `open_storage` opens it by: an absolute path, or a URL."""

    def at(self, name: str) -> str:
        """Path or URL of a file, for people."""

    def read(self, name: str, *, limit: int) -> bytes:
        """The content of a file of at most `limit` bytes.

        Raises:
            FileNotFoundError: there is none.
            DataError: it is larger, or no plain file.
        """

    def read_ranges(self, name: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """The bytes from each start to before each stop; all lie within the file.

        Raises:
            FileNotFoundError: there is none.
            DataError: it ends before, or is no plain file.
        """

    def size(self, name: str) -> int | None:
        """The size of a file in bytes; None where there is none."""

    def write(self, name: str, content: bytes, *, durable: bool = True) -> None:
        """The file is `content`, replacing any; a concurrent reader sees the old or the new, whole.

        Args:
            name: of the file.
            content: all of it.
            durable: return only when it would survive a loss of power.
        """

    def create(self, name: str, content: bytes, *, durable: bool = True) -> bool:
        """As `write`, but only where there is no such file; whether it was made: of many who try at once, by one."""

    def delete(self, name: str, *, durable: bool = False) -> None:
        """There is no such file (any more); nor would there be after a loss of power, if `durable`."""

    def files(self, folder: str = "", *, deep: bool = True) -> Iterator[StoredFile]:
        """The files below `folder`, in order of their names; none where there is no such folder.

        Args:
            folder: where.
            deep: at any depth; else only those that lie in `folder` itself.
        """

    def folders(self, folder: str = "") -> list[str]:
        """The last names of the folders in `folder`, sorted; none where there is no such folder."""

    def sweep(self) -> None:
        """Remove what writers that have certainly ended left half-written."""
