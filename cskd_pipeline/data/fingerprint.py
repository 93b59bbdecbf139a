"""Notices that data files were changed, without reading them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from cskd_pipeline.data.data_file import class_list_beside, shard_files
from cskd_pipeline.data.folder_listing import folders_below
from cskd_pipeline.data.manifest import Split
from cskd_pipeline.data.root import Root, images_in_folders
from cskd_pipeline.errors import DataError
from cskd_pipeline.record import digest_json
from cskd_pipeline.storage.durable import reading
from cskd_pipeline.storage.names import native, utf8


def fingerprint(root: Root, split: Split) -> str:
    """Sixteen hex digits over name, size and modification time of every shard, or of every folder of images.

    Shards in object storage count by their e-tags. A folder's time changes with every file added, removed or renamed in
    it. A million image files are not looked at one by one: one that was overwritten in place shows when it is read, by
    its length or its dimensions.

    Raises:
        UsageError, DataError, RetryError: the shards or the folder are missing or cannot be looked at.
    """
    if split.source == "folder":
        return _of_folders(root, split.path)
    files = shard_files(root, split.path)
    names = class_list_beside(root, files[0])
    return _digest([(file.name, file.size, file.version) for file in [*files, *([names] if names else [])]])


def _of_folders(root: Root, path: str) -> str:
    if not isinstance(root, Path):
        raise images_in_folders(root.address)
    if not (root / path).is_dir():
        raise DataError(f"{root / path} is not a folder; expected one with a folder for every class in it")
    below = root / native(path)
    with reading(below):
        times = [(utf8(os.path.relpath(folder, root)), folder.stat().st_mtime_ns) for folder in folders_below(below)]
    # A folder's size says nothing and differs between file systems.
    return _digest([(name, 0, time) for name, time in times])


def _digest(states: Sequence[tuple[str, int, int | str]]) -> str:
    return digest_json([list(state) for state in states])
