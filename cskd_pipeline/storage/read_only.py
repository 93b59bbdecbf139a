"""Storage that is only read: what others published."""

from __future__ import annotations

from typing import NoReturn

from cskd_pipeline.errors import UsageError


class ReadOnly:
    """The writing half of a `Storage`, refused."""

    @property
    def address(self) -> str:
        """The URL."""
        raise NotImplementedError

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

    def sweep(self) -> None:
        """Nothing: nobody writes."""
