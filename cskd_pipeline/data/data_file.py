"""The files of a data set in tar shards, in a folder or in object storage, as they are now."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path, PurePath, PurePosixPath
from typing import BinaryIO

from cskd_pipeline.data.class_list import checked_class_list
from cskd_pipeline.data.root import Root
from cskd_pipeline.data.shards import expand_shards
from cskd_pipeline.data.stored_shards import stored_shards
from cskd_pipeline.storage import Storage, StoredFile, open_stored
from cskd_pipeline.storage.durable import reading
from cskd_pipeline.storage.names import native, utf8

_CLASSES = "classes.txt"


@dataclasses.dataclass(frozen=True, slots=True)
class DataFile:
    """A file.

    Attributes:
        name: relative to the data set's root (absolute where it lies elsewhere).
        where: path or URL, for people.
        size: in bytes.
        version: another when it was written anew: its modification time in nanoseconds, or its e-tag.
        open: gives its bytes from the beginning on.
    """

    name: str
    where: str
    size: int
    version: int | str
    open: Callable[[], BinaryIO]


def shard_files(root: Root, pattern: str) -> list[DataFile]:
    """The shards that `pattern` names, in its order.

    Raises:
        UsageError, DataError, RetryError: as `find_shards`, or one cannot be looked at.
    """
    if isinstance(root, Path):
        return [_local(root, path) for path in expand_shards(root, pattern)]
    return [_stored(root, file) for file in stored_shards(root, pattern)]


def class_list_beside(root: Root, shard: DataFile) -> DataFile | None:
    """The `classes.txt` in the folder of `shard`, if there is one."""
    if isinstance(root, Path):
        path = (root / native(shard.name)).parent / _CLASSES
        return _local(root, path) if path.is_file() else None
    folder = str(PurePosixPath(shard.name).parent)
    beside = root.files("" if folder == "." else folder, deep=False)
    return next((_stored(root, file) for file in beside if PurePath(file.name).name == _CLASSES), None)


def class_names(file: DataFile) -> tuple[str, ...]:
    """The classes that a class list names.

    Raises:
        DataError: as `read_class_list`.
    """
    with reading(file.where), file.open() as stream:
        content = stream.read(file.size)
    return checked_class_list(content, where=file.where)


def _local(root: Path, path: Path) -> DataFile:
    with reading(path):
        found = path.stat()
    name = utf8(path.relative_to(root) if path.is_relative_to(root) else path)
    return DataFile(name, utf8(path), found.st_size, found.st_mtime_ns, lambda: path.open("rb"))


def _stored(storage: Storage, file: StoredFile) -> DataFile:
    return DataFile(file.name, storage.at(file.name), file.size, file.version, lambda: open_stored(storage, file))
