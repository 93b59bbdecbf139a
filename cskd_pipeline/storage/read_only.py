"""Storage that is only read: what others published."""

from __future__ import annotations

import abc
import functools
from collections.abc import Iterator
from typing import NoReturn

from cskd_pipeline.errors import UsageError
from cskd_pipeline.storage.listing import Listing
from cskd_pipeline.storage.storage import StoredFile


class ReadOnly(abc.ABC):
    """The half of a `Storage` that writes, refused, and what a list of all files answers."""

    @property
    @abc.abstractmethod
    def address(self) -> str:
        """The URL."""

    @functools.cached_property
    @abc.abstractmethod
    def _listing(self) -> Listing:
        """All files."""

    def size(self, name: str) -> int | None:
        """See `Storage`."""
        return self._listing.size(name)

    def files(self, folder: str = "", *, deep: bool = True) -> Iterator[StoredFile]:
        """See `Storage`."""
        return self._listing.files(folder, deep=deep)

    def folders(self, folder: str = "") -> list[str]:
        """See `Storage`."""
        return self._listing.folders(folder)

    def refuse(self) -> NoReturn:
        """Raise UsageError: nothing is written here."""
        raise UsageError(
            f"{self.address} is only read; write to a folder or a bucket, and publish it with `cskd-pipeline "
            "export-labels STORE hf://USER/NAME`"
        )

    def free_bytes(self) -> int | None:
        """None."""
        return None

    def write(self, name: str, content: bytes, *, durable: bool = True) -> None:
        """See `refuse`."""
        self.refuse()

    def create(self, name: str, content: bytes, *, durable: bool = True) -> bool:
        """See `refuse`."""
        self.refuse()

    def delete(self, name: str, *, durable: bool = False) -> None:
        """See `refuse`."""
        self.refuse()

    def sweep(self) -> None:  # noqa: B027  (not abstract: there is nothing to do)
        """Nothing: nobody writes."""
