"""Height and width of every image of a listing; broken images are found here, not in the middle of a run."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cskd_pipeline.errors import DataError
from cskd_pipeline.samples.byte_ranges import ByteRanges
from cskd_pipeline.samples.decode import bombs_are_errors, decode_rgb, image_size
from cskd_pipeline.samples.listing import Listing

Progress = Callable[[int, int], None]
"""Called with (done, total)."""

_CHUNK = 128
_HEADER_BYTES = 16 << 10
_SHOWN = 5


def measure(
    root: Path, listing: Listing, *, check: bool, workers: int, progress: Progress | None = None
) -> NDArray[np.int32]:
    """int32 [S, 2], height and width in stored pixels of every sample, in the listing's order.

    Args:
        root: the data set's root.
        listing: what to measure.
        check: decode every image completely, instead of reading its header.
        workers: reading threads; what they hide is the latency of storage.
        progress: called now and then.

    Raises:
        DataError: images are broken; the message names the first of them in the listing's order.
    """
    total = len(listing.keys)
    sizes = np.empty((total, 2), dtype=np.int32)
    ranges = ByteRanges()

    def measure_chunk(start: int) -> list[str]:
        broken = []
        for row in range(start, min(start + _CHUNK, total)):
            try:
                sizes[row] = _measure_one(root, listing, row, ranges, check=check)
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


def _measure_one(root: Path, listing: Listing, row: int, ranges: ByteRanges, *, check: bool) -> tuple[int, int]:
    file = root / listing.files[listing.file_ids[row]]
    offset, length = listing.offsets[row], listing.lengths[row]
    name = f"sample {listing.keys[row]!r} of {file}"
    if check:
        height, width, _ = decode_rgb(ranges.read(file, offset, length), name=name).shape
        return height, width
    start = ranges.read(file, offset, min(length, _HEADER_BYTES))
    try:
        return image_size(start, name=name)
    except DataError:
        # The header may lie behind a large colour profile or preview.
        return image_size(ranges.read(file, offset, length), name=name)
