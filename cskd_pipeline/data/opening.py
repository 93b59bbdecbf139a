"""From `--data` and a split, or from the digest that labels belong to, to an index."""

from __future__ import annotations

import contextlib
import functools
import os
import re
from collections.abc import Callable
from pathlib import Path

from cskd_pipeline.data.build import Progress, build_index, index_folder, on_disk
from cskd_pipeline.data.cache import cache_path
from cskd_pipeline.data.class_list import CLASSES_NAME, some
from cskd_pipeline.data.fingerprint import fingerprint
from cskd_pipeline.data.manifest import Manifest, Split, manifest_names
from cskd_pipeline.data.sample_index import HEADER_NAME, SampleIndex, read_header
from cskd_pipeline.data.source import DataSource, resolve_data
from cskd_pipeline.errors import CskdError, DataError, UsageError
from cskd_pipeline.storage import is_address
from cskd_pipeline.storage.names import native


def open_split(
    data: str | DataSource,
    split: str,
    *,
    root: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> SampleIndex:
    """The index of one split of what `--data` names, from the cache or built now.

    A cached index is used while the data files are as they were; a damaged or outdated one is rebuilt.

    Args:
        data: a manifest's name, a manifest file, a folder, a tar pattern, an address (see `resolve_data`), or the
            folder of an index that `build_index` made, which is never rebuilt; or what `resolve_data` made of one.
        split: the split's name.
        root: as in `resolve_data`.
        progress: called with (done, total) images where the index is built.

    Raises:
        UsageError, DataError, MismatchError, RetryError: as `resolve_data` and `build_index`.
    """
    if isinstance(data, str) and is_index(data):
        index = open_index(Path(data))
        if index.split != split:
            raise UsageError(f"{data} is the index of split {index.split!r}, not of {split!r}; name the other index")
        return index
    source = on_disk(resolve_data(data, root=root) if isinstance(data, str) else data)
    split = source.called(split)
    stamp = fingerprint(source.root, source.split(split))
    folder = index_folder(source, split, stamp=stamp)
    if folder.exists():
        try:
            return SampleIndex.open(folder)
        except DataError:
            pass  # damaged: built again below, in its place
    return build_index(source, split, progress=progress)


def open_index(folder: Path) -> SampleIndex:
    """The index in `folder`, which must be whole and up to date.

    Raises:
        DataError: it is missing or damaged, or the data files were changed since it was built.
    """
    index = SampleIndex.open(folder)
    if fingerprint(index.root, Split(index.layout, index.pattern, list=index.list)) != index.fingerprint:
        where = index.root.address
        raise DataError(f"index {folder} is older than the data in {where}, which has changed since; build it again")
    return index


def is_index(data: str) -> bool:
    """Whether this is the folder of an index, which knows one split."""
    return (Path(native(data)) / HEADER_NAME).is_file()


def data_source(index: SampleIndex) -> DataSource:
    """The data set that an index is a split of, with its other splits.

    Raises:
        UsageError, DataError, RetryError: as `resolve_data`, where the index was made by an early version.
    """
    manifest = read_header(index.folder).get("manifest")
    if manifest is None:
        return resolve_data(index.root.address)
    return DataSource(Manifest.from_json(manifest), index.root)


def remarks(source: DataSource, index: SampleIndex) -> list[str]:
    """What whoever opens a split should know about its classes, a line each: how they are ordered, where timm's reader
    orders them otherwise, and which a class list names that have no folder.
    """
    lines = []
    if source.unordered and index.layout == "folder":
        natural = sorted(index.classes, key=_natural)
        label = next(
            (n for n, (ours, timms) in enumerate(zip(index.classes, natural, strict=True)) if ours != timms), 0
        )
        if natural[label] != index.classes[label]:
            lines.append(
                f"class order of {index.name}: by name as text, as torchvision has it, so label {label} is "
                f"{index.classes[label]!r}; timm's reader counts naturally, and has {natural[label]!r} there "
                "(a teacher that was trained so takes --teacher-classes natural). "
                f"A {CLASSES_NAME} in {source.root.address} sets another order: its line N (from 0) is the folder of "
                "label N"
            )
    if source.manifest.partial and index.layout == "folder":
        empty = [index.classes[label] for label in (index.class_counts() == 0).nonzero()[0]]
        if empty:
            lines.append(f"{len(empty)} of {len(index.classes)} classes have no folder in {index.split}: {some(empty)}")
    return lines


def _natural(name: str) -> list[str | int]:
    """The key by which timm's reader of image folders sorts these."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name.lower())]


def known_classes(digest: str) -> tuple[str, ...] | None:
    """The class names of the data with this digest, where it was opened from before; None where it was not."""
    for folder, _ in _indices_of(digest):
        with contextlib.suppress(CskdError):
            return tuple(read_header(folder)["classes"])
    return None


def find_split(
    *,
    digest: str,
    name: str,
    split: str,
    classes: int | None = None,
    root: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> SampleIndex:
    """The split with this digest, wherever it lies: where it was opened from before, or by the name of a manifest.

    Args:
        digest: that of the index, which is what identifies the images.
        name: what the data set was called when labels were made; looked up among the shipped manifests.
        split: what the split was called, in that manifest.
        classes: how many it has, where that is known: a copy of the images may lie beside another list of classes.
        root: as in `resolve_data`; where it is given, the name is tried first.
        progress: called with (done, total) images where the index is built.

    Raises:
        DataError: the split is not found; the message says where it was looked for.
    """
    ways: list[tuple[str, Callable[[], SampleIndex]]] = [
        (place, functools.partial(open_index, folder)) for folder, place in _indices_of(digest)
    ]
    if name in manifest_names():
        by_name = functools.partial(open_split, name, split, root=root, progress=progress)
        ways.insert(len(ways) if root is None else 0, (name, by_name))
    tried: dict[str, str] = {}  # a place has several indices if it was spelled in several ways
    for place, find in ways:
        try:
            index = find()
        except CskdError as error:
            tried.setdefault(place, str(error))
            continue
        if index.digest != digest:
            tried[place] = f"{name} {split} in {index.root.address} has the digest {index.digest}"
        elif classes not in (None, len(index.classes)):
            tried[place] = f"{index.root.address} has {len(index.classes)} classes instead of {classes}"
        else:
            return index
    where = "; ".join(tried.values()) or f"no index in {cache_path('index')} has this digest"
    raise DataError(
        f"the images that belong to these labels ({name} {split}, digest {digest}) are not found; say where they lie "
        f"with --data ({where})"
    )


def _indices_of(digest: str) -> list[tuple[Path, str]]:
    """Folder and place of the cached indices with this digest, the last made first; of the others little is read."""
    found = []
    for file in cache_path("index").glob(f"*/{HEADER_NAME}"):
        with contextlib.suppress(OSError, DataError):
            if digest.encode() in file.read_bytes() and (header := read_header(file.parent)).get("digest") == digest:
                root = str(header.get("root", file.parent))
                place = root if is_address(root) else os.path.realpath(native(root))
                found.append((file.stat().st_mtime_ns, file.parent, place))
    return [(folder, place) for _, folder, place in sorted(found, reverse=True)]
