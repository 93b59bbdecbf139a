"""Random access to parts of files in object storage: many requests at a time, for each takes long to be answered."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

from cskd_pipeline.data.places import CHANGED, Place
from cskd_pipeline.errors import DataError
from cskd_pipeline.storage import Storage

REQUESTS = 16
"""Requests under way at a time."""

_GAP, _STRETCH = 32 << 10, 2 << 20
"""Images that are at most so far apart share a request of up to so many bytes (or of one image)."""


class StoredRanges:
    """Reads byte ranges of a storage's files, in threads that are started at the first use.

    One that was inherited by a fork is of no use.
    """

    def __init__(self, storage: Storage) -> None:
        """The files of `storage`."""
        self._storage = storage
        self._threads: ThreadPoolExecutor | None = None

    def read(self, place: Place) -> bytes:
        """See `ImageReader`."""
        name, offset, length = place
        try:
            return self._storage.read_ranges(name, [(offset, offset + length)])[0] if length else b""
        except FileNotFoundError as error:
            raise DataError(f"{self._storage.at(name)} is gone; {CHANGED}") from error
        except DataError as error:
            raise DataError(f"{error}; {CHANGED}") from error

    def read_all(self, places: Sequence[Place]) -> Iterator[bytes]:
        """See `ImageReader`; requests are sent at once."""
        self._threads = self._threads or ThreadPoolExecutor(REQUESTS, thread_name_prefix="images")
        fetched: dict[Place, tuple[Future[bytes], int]] = {}
        for stretch in stretches(places):
            future = self._threads.submit(self.read, stretch.whole)
            fetched |= dict.fromkeys(stretch.places, (future, stretch.whole.offset))
        return self._parts(places, fetched)

    def _parts(self, places: Sequence[Place], fetched: dict[Place, tuple[Future[bytes], int]]) -> Iterator[bytes]:
        try:
            for place in places:
                future, start = fetched[place]
                yield future.result()[place.offset - start :][: place.length]
        finally:
            for future, _ in fetched.values():
                future.cancel()


class Stretch(NamedTuple):
    """Images that are fetched together, and the bytes from the first's first to the last's last."""

    whole: Place
    places: list[Place]


def stretches(places: Sequence[Place]) -> list[Stretch]:
    """Stretches that hold all these places, those with the earliest of them first."""
    found: list[Stretch] = []
    for place in sorted(set(places)):
        if found:
            (file, start, length), joined = found[-1]
            end = max(start + length, place.offset + place.length)
            if file == place.file and place.offset - start - length <= _GAP and end - start <= _STRETCH:
                found[-1] = Stretch(Place(file, start, end - start), [*joined, place])
                continue
        found.append(Stretch(place, [place]))
    turn = {place: number for number, place in reversed(list(enumerate(places)))}
    return sorted(found, key=lambda stretch: min(turn[place] for place in stretch.places))
