"""What reads encoded images, wherever the data set lies."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from cskd_pipeline.data.byte_ranges import ByteRanges, WholeFiles
from cskd_pipeline.data.places import Place
from cskd_pipeline.data.root import Root
from cskd_pipeline.data.stored_ranges import StoredRanges


class ImageReader(Protocol):
    """Encoded images by their places. Threads may share one."""

    def read(self, place: Place) -> bytes:
        """The bytes at a place.

        Raises:
            DataError: the file is gone or cannot be read, or is not as it was indexed.
            RetryError: object storage refuses or is out of reach.
        """

    def read_all(self, places: Sequence[Place]) -> Iterator[bytes]:
        """As `read` for each, in order; where each takes long to come they come together, and are kept until taken."""


def image_reader(root: Root, *, whole: bool = False) -> ImageReader:
    """What reads images below `root`; `whole`: each is a file of its own, which must be as long as its image."""
    if not isinstance(root, Path):
        return StoredRanges(root)
    return WholeFiles(root) if whole else ByteRanges(root)
