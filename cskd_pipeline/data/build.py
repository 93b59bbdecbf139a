"""Building an index: list, check against the manifest, measure, order, write."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cskd_pipeline.data.cache import cache_folder
from cskd_pipeline.data.decode import HEADER_BYTES, bombs_are_errors, decode_rgb, image_size
from cskd_pipeline.data.file_list import list_files
from cskd_pipeline.data.fingerprint import fingerprint
from cskd_pipeline.data.folder_listing import list_folder
from cskd_pipeline.data.images import REQUESTS, ImageReader, image_reader
from cskd_pipeline.data.listing import Listing
from cskd_pipeline.data.manifest import Split
from cskd_pipeline.data.sample_index import (
    FORMAT_VERSION,
    HEADER_NAME,
    Columns,
    SampleIndex,
    canonical_order,
    order_digest,
    write_index,
)
from cskd_pipeline.data.shapes import TRAIN_IMAGES, VAL_IMAGES, write_shapes
from cskd_pipeline.data.shards import class_list, find_shards
from cskd_pipeline.data.source import DataSource, local_folder
from cskd_pipeline.data.tar_listing import list_tars
from cskd_pipeline.errors import DataError, MismatchError, UsageError
from cskd_pipeline.record import digest_json
from cskd_pipeline.storage import FolderStorage, Storage

Progress = Callable[[int, int], None]
"""Called with (done, total)."""

_ROWS_AT_A_TIME = 128
_SHOWN = 5


def build_index(
    source: DataSource,
    split: str,
    *,
    out: Path | None = None,
    check: bool = False,
    workers: int = 8,
    progress: Progress | None = None,
    report_broken: Callable[[str], None] | None = None,
) -> SampleIndex:
    """Builds the index of one split, puts it in place and opens it.

    Several processes may build the same index at once; all of them get a whole one.

    Args:
        source: the data set.
        split: the split's name.
        out: the index's folder (an index there is replaced); default: its place in the cache.
        check: decode every image completely, instead of reading its header.
        workers: threads that read headers; more are used where images lie in object storage.
        progress: called with (done, total) images.
        report_broken: called with what is wrong with each broken image, all of which are looked for then.

    Raises:
        UsageError: the split is unknown, or `out` holds something else.
        DataError: the data is incomplete, damaged, or not what the manifest says.
        MismatchError: the manifest names another digest.
    """
    if out is not None and out.exists() and not (out / HEADER_NAME).is_file() and any(out.iterdir()):
        raise UsageError(f"{out} exists and is no index; name another folder or remove it")
    source, split = on_disk(source), source.called(split)
    spec = source.split(split)
    stamp = fingerprint(source.root, spec)  # before listing: a change during the build shows at the next opening
    folder = out if out is not None else index_folder(source, split, stamp=stamp)
    if not isinstance(source.root, FolderStorage):
        workers = max(workers, REQUESTS)
    listing = _list(source, spec, workers=workers, progress=progress)
    _check_listing(listing, source=source, split=split, spec=spec)
    sizes = _measure(source.root, listing, check=check, workers=workers, progress=progress, report_broken=report_broken)
    order = canonical_order(listing.keys)
    keys = [listing.keys[row] for row in order]
    labels = [listing.labels[row] for row in order]
    digest = order_digest(keys, labels)
    if spec.index_digest is not None and digest != spec.index_digest:
        raise MismatchError(
            f"{source.manifest.name} {split}: the digest of this copy is {digest}, the manifest demands "
            f"{spec.index_digest}; it is another version of the data, or files were renamed"
        )
    columns: Columns = {
        "keys": np.array([key.encode() for key in keys]),
        "labels": np.array(labels),
        "file_ids": np.array(listing.file_ids)[order],
        "offsets": np.array(listing.offsets)[order],
        "lengths": np.array(listing.lengths)[order],
        "heights": sizes[order, 0],
        "widths": sizes[order, 1],
        "files": np.array([name.encode() for name in listing.files]),
    }
    header = {
        "name": source.manifest.name,
        "split": split,
        "samples": len(keys),
        "digest": digest,
        "manifest": source.manifest.to_json(),
        "source": spec.source,
        "root": source.root.address,
        "path": spec.path,
        "list": spec.list,
        "fingerprint": stamp,
        "classes": list(listing.classes),
        "left_out": _summary([*source.left_out, *listing.left_out]),
    }
    write_index(folder, columns, header)
    return SampleIndex.open(folder)


def on_disk(source: DataSource) -> DataSource:
    """`source`, its generated splits (if it has any) drawn and turned into shards."""
    generated = {name: split for name, split in source.manifest.splits.items() if split.source == "generated"}
    if not generated:
        return source
    shards = {name: dataclasses.replace(split, source="tar", path=f"{name}-*.tar") for name, split in generated.items()}
    manifest = dataclasses.replace(source.manifest, splits={**source.manifest.splits, **shards})

    if source.manifest.name != "shapes" or set(generated) != {"train", "val"}:
        raise UsageError(f"only 'shapes' with train and val is generated, found {source.manifest.name!r}")
    train, val = (generated[name].count for name in ("train", "val"))
    folder = write_shapes(train=train or TRAIN_IMAGES, val=val or VAL_IMAGES)
    return DataSource(manifest, FolderStorage(folder))


def index_folder(source: DataSource, split: str, *, stamp: str) -> Path:
    """The cache folder for the index of this state of the data; another state has another folder."""
    state = digest_json(
        [FORMAT_VERSION, source.manifest.to_json(), source.root.address, source.split(split).path, stamp]
    )
    readable = re.sub(r"[^A-Za-z0-9_.-]", "-", f"{source.manifest.name[:80]}-{split[:20]}")
    return cache_folder("index") / f"{readable}-{state}"


def _list(source: DataSource, spec: Split, *, workers: int, progress: Progress | None) -> Listing:
    root, manifest = source.root, source.manifest
    classes = manifest.class_list
    if spec.source == "folder":
        return list_folder(local_folder(root), spec.path, classes=manifest.classes, partial=bool(manifest.partial))
    if spec.list is not None:
        return list_files(local_folder(root), spec.path, spec.list, classes=classes)
    shards = find_shards(root, spec.path)
    classes = classes or class_list(root, shards[0])
    if isinstance(root, FolderStorage):
        return list_tars(root, shards, classes=classes)
    # One pass over what takes long to come, many shards at a time.
    return list_tars(root, shards, classes=classes, measure=True, threads=workers, progress=progress)


def _summary(left_out: list[str]) -> str:
    """How many files and folders are left out, and what some of them are called; "" for none."""
    more = ", ..." if len(left_out) > _SHOWN else ""
    return f"{len(left_out)} ({', '.join(left_out[:_SHOWN])}{more})" if left_out else ""


def _check_listing(listing: Listing, *, source: DataSource, split: str, spec: Split) -> None:
    found = len(listing.keys)
    where = f"{source.manifest.name} {split} in {source.root.address}"
    if not found:
        raise DataError(f"{where} holds no image; check the path {spec.path!r}")
    if spec.count is not None and found != spec.count:
        raise DataError(
            f"{where} holds {found} images, the manifest says {spec.count}; "
            "complete the copy, or describe a part of the set in a manifest of your own"
        )


def _measure(
    root: Storage,
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
    """
    total = len(listing.keys)
    sizes = np.empty((total, 2), dtype=np.int32)
    reader = image_reader(root)

    def rows_from(start: int) -> list[str]:
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
        for start, found in zip(starts, pool.map(rows_from, starts), strict=True):
            broken += found
            if report_broken is not None:
                for line in found:
                    report_broken(line)
            elif len(broken) >= _SHOWN:
                pool.shutdown(cancel_futures=True)
                break
            if progress is not None:
                progress(min(start + _ROWS_AT_A_TIME, total), total)
    if broken and report_broken is not None:
        raise DataError(f"{len(broken)} of {total} images are broken, and were listed; replace or remove them")
    if broken:
        least, how = "", ""
        if len(broken) >= _SHOWN:
            least, how = " (at least)", ", `cskd-pipeline index --check` lists them all"
        raise DataError(f"{len(broken)}{least} of {total} images are broken{how}: {'; '.join(broken[:_SHOWN])}")
    return sizes


def _measure_one(root: Storage, listing: Listing, row: int, reader: ImageReader, *, check: bool) -> tuple[int, int]:
    span = listing.span(row)
    name = f"sample {listing.keys[row]!r} of {root.at(span.file)}"
    if check:
        height, width, _ = decode_rgb(reader.read(span), name=name).shape
        return height, width
    start = reader.read(span._replace(length=min(span.length, HEADER_BYTES)))
    try:
        return image_size(start, name=name)
    except DataError:
        # The header may lie behind a large colour profile or preview.
        return image_size(reader.read(span), name=name)
