"""Building an index: list, check against the manifest, measure, order, write."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np

from cskd_pipeline.data.cache import cache_folder
from cskd_pipeline.data.data_file import class_list_beside, class_names, shard_files
from cskd_pipeline.data.fingerprint import fingerprint
from cskd_pipeline.data.folder_listing import list_folder
from cskd_pipeline.data.index_files import FORMAT_VERSION, HEADER_NAME, Columns, write_index
from cskd_pipeline.data.listing import Listing
from cskd_pipeline.data.manifest import Split
from cskd_pipeline.data.measure import SHOWN, Progress, measure
from cskd_pipeline.data.root import address_of
from cskd_pipeline.data.sample_index import SampleIndex, canonical_order, order_digest
from cskd_pipeline.data.shapes import TRAIN_IMAGES, VAL_IMAGES, write_shapes
from cskd_pipeline.data.source import DataSource
from cskd_pipeline.data.stored_ranges import REQUESTS
from cskd_pipeline.data.tar_listing import list_tars
from cskd_pipeline.errors import DataError, MismatchError, UsageError
from cskd_pipeline.record import digest_json


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
        RetryError: the index, or generated data, cannot be written; or object storage refuses or is out of reach.
    """
    if out is not None and out.exists() and not (out / HEADER_NAME).is_file() and any(out.iterdir()):
        raise UsageError(f"{out} exists and is no index; name another folder or remove it")
    source = on_disk(source)
    spec = source.split(split)
    stamp = fingerprint(source.root, spec)  # before listing: a change during the build shows at the next opening
    folder = out if out is not None else index_folder(source, split, stamp=stamp)
    if not isinstance(source.root, Path):
        workers = max(workers, REQUESTS)
    listing = _list(source, spec, workers=workers, progress=progress)
    _check_listing(listing, source=source, split=split, spec=spec)
    sizes = measure(source.root, listing, check=check, workers=workers, progress=progress, report_broken=report_broken)
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
        "root": address_of(source.root),
        "path": spec.path,
        "fingerprint": stamp,
        "classes": list(listing.classes),
        "counts": np.bincount(labels, minlength=len(listing.classes)).tolist(),
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
    return DataSource(manifest, write_shapes(train=train or TRAIN_IMAGES, val=val or VAL_IMAGES))


def index_folder(source: DataSource, split: str, *, stamp: str) -> Path:
    """The cache folder for the index of this state of the data; another state has another folder.

    Raises:
        RetryError: the cache cannot be written.
    """
    state = digest_json(
        [FORMAT_VERSION, source.manifest.to_json(), address_of(source.root), source.split(split).path, stamp]
    )
    readable = re.sub(r"[^A-Za-z0-9_.-]", "-", f"{source.manifest.name[:80]}-{split[:20]}")
    return cache_folder("index") / f"{readable}-{state}"


def _list(source: DataSource, spec: Split, *, workers: int, progress: Progress | None) -> Listing:
    root, classes = source.root, source.manifest.classes
    if spec.source == "folder":
        assert isinstance(root, Path), "a source refuses it"
        return list_folder(root, spec.path, classes=classes)
    shards = shard_files(root, spec.path)
    if not classes and (named := class_list_beside(root, shards[0])):
        classes = class_names(named)
    if isinstance(root, Path):
        return list_tars(shards, classes=classes)
    # One pass over what takes long to come, many shards at a time.
    return list_tars(shards, classes=classes, measure=True, threads=workers, progress=progress)


def _summary(left_out: list[str]) -> str:
    """How many files and folders are left out, and what some of them are called; "" for none."""
    more = ", ..." if len(left_out) > SHOWN else ""
    return f"{len(left_out)} ({', '.join(left_out[:SHOWN])}{more})" if left_out else ""


def _check_listing(listing: Listing, *, source: DataSource, split: str, spec: Split) -> None:
    found = len(listing.keys)
    where = f"{source.manifest.name} {split} in {address_of(source.root)}"
    if not found:
        raise DataError(f"{where} holds no image; check the path {spec.path!r}")
    if spec.count is not None and found != spec.count:
        raise DataError(
            f"{where} holds {found} images, the manifest says {spec.count}; "
            "complete the copy, or describe a part of the set in a manifest of your own"
        )
