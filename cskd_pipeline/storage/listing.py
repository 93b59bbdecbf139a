"""Files by name and size, where they are known at once, and what `Storage` asks about them."""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Mapping

from cskd_pipeline.storage.storage import StoredFile


class Listing:
    """All files of a storage that does not change."""

    def __init__(self, sizes: Mapping[str, int], *, version: str = "") -> None:
        """Of files with these sizes in bytes; `version` is one for all of them."""
        self._sizes, self._names, self._version = dict(sizes), sorted(sizes), version

    def size(self, name: str) -> int | None:
        """Of a file, None if there is none."""
        return self._sizes.get(name)

    def files(self, folder: str, *, deep: bool) -> Iterator[StoredFile]:
        """As `Storage.files`."""
        for name in self._below(folder):
            if deep or "/" not in name[len(folder) + bool(folder) :]:
                yield StoredFile(name, self._sizes[name], self._version)

    def folders(self, folder: str) -> list[str]:
        """As `Storage.folders`."""
        start = len(folder) + bool(folder)
        return sorted({head for name in self._below(folder) for head, _, rest in [name[start:].partition("/")] if rest})

    def _below(self, folder: str) -> list[str]:
        if not folder:
            return self._names
        first = bisect.bisect_left(self._names, f"{folder}/")
        return self._names[first : bisect.bisect_left(self._names, f"{folder}0")]  # "0" comes after "/"
