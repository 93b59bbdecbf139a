"""Height and width of every image of a listing; broken images are found here, not in the middle of a run."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from cskd_pipeline.data.decode import HEADER_BYTES, bombs_are_errors, decode_rgb, image_size
from cskd_pipeline.data.image_reader import ImageReader, image_reader
from cskd_pipeline.data.listing import Listing
from cskd_pipeline.data.root import Root, location
from cskd_pipeline.errors import DataError

Progress = Callable[[int, int], None]
"""Called with (done, total)."""

_CHUNK = 128
_SHOWN = 5


def measure(
    root: Root, listing: Listing, *, check: bool, workers: int, progress: Progress | None = None
) -> NDArray[np.int32]:
    """int32 [S, 2], height and width in stored pixels of every sample, in the listing's order.

    Args:
        root: the data set's root.
        listing: what to measure; the sizes that it knows are taken from it.
        check: decode every image completely, instead of reading its header.
        workers: reading threads; what they hide is the latency of storage.
        progress: called now and then.

    Raises:
        DataError: images are broken; the message names the first of them in the listing's order.
        RetryError: object storage refuses or is out of reach.
    """
    total = len(listing.keys)
    sizes = np.empty((total, 2), dtype=np.int32)
    reader = image_reader(root)

    def measure_chunk(start: int) -> list[str]:
        broken = []
        for row in range(start, min(start + _CHUNK, total)):
            try:
                known = None if check else listing.sizes[row]
                sizes[row] = known or _measure_one(root, listing, row, reader, check=check)
            except DataError as error:
                broken.append(str(error))
        return broken

    broken: list[str] = []
    with bombs_are_errors(), ThreadPoolExecutor(workers) as pool:
        starts = range(0, total, _CHUNK)
        for start, found in zip(starts, pool.map(measure_chunk, starts), strict=True):
            broken += found
            if len(broken) >= _SHOWN:
                pool.shutdown(cancel_futures=True)
                break
            if progress is not None:
                progress(min(start + _CHUNK, total), total)
    if broken:
        more = " (at least)" if len(broken) >= _SHOWN else ""
        raise DataError(f"{len(broken)}{more} of {total} images are broken: {'; '.join(broken[:_SHOWN])}")
    return sizes


def _measure_one(root: Root, listing: Listing, row: int, reader: ImageReader, *, check: bool) -> tuple[int, int]:
    place = listing.place(row)
    name = f"sample {listing.keys[row]!r} of {location(root, place.file)}"
    if check:
        height, width, _ = decode_rgb(reader.read(place), name=name).shape
        return height, width
    start = reader.read(place._replace(length=min(place.length, HEADER_BYTES)))
    try:
        return image_size(start, name=name)
    except DataError:
        # The header may lie behind a large colour profile or preview.
        return image_size(reader.read(place), name=name)
