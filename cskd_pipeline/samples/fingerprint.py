"""Notices that data files were changed, without reading them."""

from __future__ import annotations

import os
from pathlib import Path

from cskd_pipeline.errors import DataError
from cskd_pipeline.manifest import Split
from cskd_pipeline.manifest.shards import expand_shards
from cskd_pipeline.records.frozen import digest_json
from cskd_pipeline.samples.folder_listing import folders_below


def fingerprint(root: Path, split: Split) -> str:
    """Sixteen hex digits over name, size and modification time of every shard, or of every folder of images.

    A folder's time changes with every file added, removed or renamed in it. A million image files are not looked
    at one by one: one that was overwritten in place shows when it is read, by its length or its dimensions.

    Raises:
        DataError: the shards or the folder are missing.
    """
    if split.source == "folder" and not (root / split.path).is_dir():
        raise DataError(f"{root / split.path} is not a folder; expected one with a folder for every class in it")
    if split.source == "folder":
        paths = folders_below(root / split.path)
    else:
        paths = expand_shards(root, split.path)
        names = paths[0].parent / "classes.txt"
        paths += [names] if names.is_file() else []
    try:
        stats = [(os.path.relpath(path, root), path.stat()) for path in paths]
    except OSError as error:
        raise DataError(f"{error.filename} cannot be read: {error.strerror or error}") from error
    # A folder's size says nothing and differs between file systems.
    sized = split.source == "tar"
    return digest_json([[name, stat.st_size if sized else 0, stat.st_mtime_ns] for name, stat in stats])
