"""Where a copy of a data set lies: a folder, or an address in object storage."""

from __future__ import annotations

import os
from pathlib import Path

from cskd_pipeline.errors import UsageError
from cskd_pipeline.storage import Storage, is_address, open_storage
from cskd_pipeline.storage.names import native, utf8

Root = Path | Storage


def root_at(location: str | os.PathLike[str]) -> Root:
    """The folder at a path, or the storage at a URL such as `s3://bucket/path`.

    Raises:
        UsageError: the URL is malformed, or of a kind that is not read.
    """
    text = os.fspath(location)
    return open_storage(text) if is_address(text) else Path(native(text)).expanduser()


def address_of(root: Root) -> str:
    """What `root_at` makes the same root of, wherever it is called: an absolute path, or the URL."""
    return utf8(root.absolute()) if isinstance(root, Path) else root.address


def location(root: Root, name: str) -> Path | str:
    """Path or URL of a file in `root`."""
    return root / native(name) if isinstance(root, Path) else root.at(name)


def folder_below(root: Root, name: str) -> Root:
    """The folder `name` in `root`."""
    return root / name if isinstance(root, Path) else open_storage(root.at(name))


def images_in_folders(where: str) -> UsageError:
    """What to raise where images of class folders would have to be read from object storage."""
    return UsageError(
        f"{where}: images in class folders are not read from object storage, only tar shards; pack them "
        "(cskd-pipeline index --pack), upload the tars and give their address (--data s3://bucket/path)"
    )
