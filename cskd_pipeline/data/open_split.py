"""The one call that turns `--data` and a split into an index."""

from __future__ import annotations

import os
from pathlib import Path

from cskd_pipeline.data.build import build_index, index_folder, on_disk
from cskd_pipeline.data.fingerprint import fingerprint
from cskd_pipeline.data.index_files import HEADER_NAME
from cskd_pipeline.data.manifest import Split
from cskd_pipeline.data.measure import Progress
from cskd_pipeline.data.root import address_of
from cskd_pipeline.data.sample_index import SampleIndex
from cskd_pipeline.data.source import resolve_data
from cskd_pipeline.errors import DataError, UsageError


def open_split(
    data: str,
    split: str,
    *,
    root: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> SampleIndex:
    """The index of one split of what `--data` names, from the cache or built now.

    A cached index is used while the data files are as they were; a damaged or outdated one is built anew.

    Args:
        data: a manifest's name, a manifest file, a folder, a tar pattern, an address (see `resolve_data`), or the
            folder of an index that `build_index` made, which is never rebuilt.
        split: the split's name.
        root: as in `resolve_data`.
        progress: called with (done, total) images where the index is built.

    Raises:
        UsageError, DataError, MismatchError, RetryError: as `resolve_data` and `build_index`.
    """
    if (Path(data) / HEADER_NAME).is_file():
        index = open_index(Path(data))
        if index.split != split:
            raise UsageError(f"{data} is the index of split {index.split!r}, not of {split!r}; name the other index")
        return index
    source = on_disk(resolve_data(data, root=root))
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
    if fingerprint(index.root, Split(index.source, index.pattern)) != index.fingerprint:
        where = address_of(index.root)
        raise DataError(f"index {folder} is older than the data in {where}, which has changed since; build it again")
    return index
