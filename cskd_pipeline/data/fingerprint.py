"""Detect changed data files without reading them."""

from __future__ import annotations

import os

from cskd_pipeline.data.folder_listing import folders_below
from cskd_pipeline.data.manifest import Split
from cskd_pipeline.data.shards import class_list_beside, find_shards
from cskd_pipeline.data.source import local_folder
from cskd_pipeline.errors import DataError
from cskd_pipeline.record import digest_json
from cskd_pipeline.storage import FolderStorage, Storage
from cskd_pipeline.storage.durable import reading
from cskd_pipeline.storage.names import native, utf8


def fingerprint(root: Storage, split: Split) -> str:
    """Sixteen hex digits over name, size and modification time of every shard, of every folder of images, or of a list.

    Shards in object storage count by their e-tags. A folder's time changes with every file added, removed or renamed in
    it. A million image files are not looked at one by one: one that was overwritten in place shows when it is read, by
    its length or its dimensions.

    Raises:
        UsageError, DataError, RetryError: the shards or the folder are missing or cannot be looked at.
    """
    if split.list is not None:
        file = local_folder(root) / native(split.list)
        if not file.is_file():
            raise DataError(f"the list {file} does not exist; a split's list is named relative to the root")
        with reading(file):
            found = file.stat()
        return digest_json([[split.list, found.st_size, found.st_mtime_ns]])
    if split.source != "folder":
        files = find_shards(root, split.path)
        names = class_list_beside(root, files[0])
        local = isinstance(root, FolderStorage)
        return digest_json(
            [
                [file.name, file.size, int(file.version) if local and file.version else file.version]
                for file in [*files, *([names] if names else [])]
            ]
        )
    top = local_folder(root)
    folder = top / native(split.path)
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; expected one with a folder for every class in it")
    with reading(folder):
        # A folder's size says nothing and differs between file systems.
        return digest_json(
            [[utf8(os.path.relpath(below, top)), 0, below.stat().st_mtime_ns] for below in folders_below(folder)]
        )
