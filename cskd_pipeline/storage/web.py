"""Files on a web server, `https://HOST/PATH`: read, with the list of files that `export-labels` leaves beside them."""

from __future__ import annotations

import functools
import json
from typing import Any

from cskd_pipeline.errors import DataError
from cskd_pipeline.storage.listing import Listing
from cskd_pipeline.storage.objects import ObjectStorage, open_client
from cskd_pipeline.storage.read_only import ReadOnly
from cskd_pipeline.storage.storage import Storage

SCHEMES = ("https", "http")
FILE_LIST = "files.json"
_MOST_BYTES = 1 << 28


class WebStorage(ReadOnly, ObjectStorage):
    """The files below an address."""

    def __init__(self, url: str) -> None:
        """Of this address; nothing is asked of the server yet. Raises UsageError if obstore is not installed."""
        super().__init__(url, open_client(url, allow_http=True))

    def __reduce__(self) -> tuple[Any, ...]:
        return WebStorage, (self._url,)

    @property
    def address(self) -> str:
        """The URL."""
        return self._url

    @functools.cached_property
    def _listing(self) -> Listing:
        try:
            sizes = json.loads(self.read(FILE_LIST, limit=_MOST_BYTES))
            return Listing({str(name): int(size) for name, size in sizes.items()})
        except FileNotFoundError as error:
            raise DataError(
                f"{self._url} has no {FILE_LIST}, which `cskd-pipeline export-labels` writes, for a web server does "
                "not list its files; publish a copy that was made by it, or correct the address"
            ) from error
        except (ValueError, AttributeError, TypeError) as error:
            raise DataError(f"{self.at(FILE_LIST)} is damaged ({error}); export the labels again") from error


def write_file_list(storage: Storage) -> None:
    """List all files of a storage in it, but for hidden ones, for readers on the web."""
    sizes = {
        file.name: file.size for file in storage.files() if file.name != FILE_LIST and not file.name.startswith(".")
    }
    storage.write(FILE_LIST, json.dumps(sizes, indent=0).encode())
