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

_ROWS_AT_A_TIME = 128
SHOWN = 5


def measure(
    root: Root,
    listing: Listing,
    *,
    check: bool,
    workers: int,
    progress: Progress | None = None,
    report_broken: Callable[[str], None] | None = None,
) -> NDArray[np.int32]:
    """int32 [S, 2], height and width in stored pixels of every sample, in the listing's order.

    Args:
        root: the data set's root.
        listing: what to measure; the sizes that it knows are taken from it.
        check: decode every image completely, instead of reading its header.
        workers: reading threads; what they hide is the latency of storage.
        progress: called now and then.
        report_broken: called with what is wrong with each broken image, in the listing's order.

    Raises:
        DataError: images are broken; the message names the first of them in the listing's order, after which the
            others are not looked for unless they are reported.
        RetryError: storage refuses or is out of reach.
    """
    total = len(listing.keys)
    sizes = np.empty((total, 2), dtype=np.int32)
    reader = image_reader(root)

    def measure_rows(start: int) -> list[str]:
        broken = []
        for row in range(start, min(start + _ROWS_AT_A_TIME, total)):
            try:
                known = None if check else listing.sizes[row]
                sizes[row] = known or _measure_one(root, listing, row, reader, check=check)
            except DataError as error:
                broken.append(str(error))
        return broken

    broken: list[str] = []
    with bombs_are_errors(), ThreadPoolExecutor(workers) as pool:
        starts = range(0, total, _ROWS_AT_A_TIME)
        for start, found in zip(starts, pool.map(measure_rows, starts), strict=True):
            broken += found
            if report_broken is not None:
                for line in found:
                    report_broken(line)
            elif len(broken) >= SHOWN:
                pool.shutdown(cancel_futures=True)
                break
            if progress is not None:
                progress(min(start + _ROWS_AT_A_TIME, total), total)
    if broken and report_broken is not None:
        raise DataError(f"{len(broken)} of {total} images are broken, and were listed; replace or remove them")
    if broken:
        least, how = "", ""
        if len(broken) >= SHOWN:
            least, how = " (at least)", ", `cskd-pipeline index --check` lists them all"
        raise DataError(f"{len(broken)}{least} of {total} images are broken{how}: {'; '.join(broken[:SHOWN])}")
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
