"""Tar shards: patterns with globs and braces, and the files that they name in a folder or in object storage."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path, PurePath, PurePosixPath
from typing import BinaryIO

from cskd_pipeline.data.class_list import CLASSES_NAME, ClassList
from cskd_pipeline.errors import DataError, UsageError
from cskd_pipeline.storage import FolderStorage, Storage, StoredFile, is_address, open_storage, open_stored
from cskd_pipeline.storage.durable import reading
from cskd_pipeline.storage.names import native, utf8

SPLIT_FIELD = "{split}"
_WILD = "*?["
_MAGIC = _WILD + "{"


class NoShardsError(DataError):
    """A pattern names no file, or one that is missing."""


def is_pattern(text: str) -> bool:
    """True where `text` names tar files rather than a folder or a manifest."""
    return any(letter in text for letter in _MAGIC) or ".tar" in PurePath(text).suffixes


def root_and_pattern(text: str) -> tuple[Storage, str]:
    """The leading folders of a path or an address that exist or hold no wildcard, and the rest, which is a pattern.

    Raises:
        UsageError: an address names no bucket, or is of a kind that is not read.
    """
    scheme, mark, rest = text.partition("://") if is_address(text) else ("", "", utf8(native(text)))
    parts = PurePosixPath(rest).parts
    fixed = 0
    while fixed < len(parts) - 1 and (
        not any(letter in parts[fixed] for letter in _MAGIC)
        or (not scheme and Path(native(str(PurePosixPath(*parts[: fixed + 1])))).is_dir())
    ):
        fixed += 1
    if scheme and not fixed:
        raise UsageError(f"{text!r} names no bucket and shards in it; write s3://bucket/path/train-*.tar")
    return open_storage(f"{scheme}{mark}{PurePosixPath(*parts[:fixed])}", published=False), str(
        PurePosixPath(*parts[fixed:])
    )


def find_shards(root: Storage, pattern: str) -> list[StoredFile]:
    """The files under `root` that `pattern` names, sorted within each brace alternative.

    Braces such as `{000..009}` and `{a,b}` are expanded first; every alternative without a wildcard must exist.
    A folder is listed once, and alone.

    Raises:
        UsageError: braces do not balance, or the pattern is an address; or it holds `**` or `..` in object storage.
        NoShardsError: a file that the braces name is missing, or nothing matches.
        DataError: there is no such bucket.
    """
    listed = functools.cache(lambda folder: list(root.files(folder, deep=False)))
    found: dict[str, StoredFile] = {}
    for alternative in _alternatives(pattern):
        parts = PurePosixPath(alternative).parts
        if {"..", "/", "**"} & set(parts) and not isinstance(root, FolderStorage):
            raise UsageError(f"pattern {pattern!r}: neither .. nor ** is read in object storage, nor a leading /")
        matches = list(_matching(root, "", parts, listed))
        if not matches and not _is_wild(alternative):
            raise NoShardsError(f"{root.at(alternative)} does not exist, but the pattern {pattern!r} names it")
        found |= {file.name: file for file in matches}
    if not found:
        raise NoShardsError(f"no file under {root.address} matches {pattern!r}; check the folder and the pattern")
    return list(found.values())


def has_shards(root: Storage, pattern: str) -> bool:
    """Whether `find_shards` finds any, and all that are named.

    Raises:
        UsageError, DataError, RetryError: as `find_shards`, but for `NoShardsError`.
    """
    try:
        return bool(find_shards(root, pattern))
    except NoShardsError:
        return False


def open_file(root: Storage, file: StoredFile) -> BinaryIO:
    """The bytes of a file, from the beginning on.

    Raises:
        DataError: it is no plain file.
    """
    if not isinstance(root, FolderStorage):
        return open_stored(root, file)
    if file.size < 0:
        raise DataError(f"{root.at(file.name)} cannot be read: it is no plain file, or a link to nothing; restore it")
    with reading(root.at(file.name)):
        return (root.root / native(file.name)).open("rb")


def class_list_beside(root: Storage, shard: StoredFile) -> StoredFile | None:
    """The `classes.txt` in the folder of `shard`, if there is one."""
    folder = str(PurePosixPath(shard.name).parent)
    beside = root.files("" if folder == "." else folder, deep=False)
    return next((file for file in beside if PurePosixPath(file.name).name == CLASSES_NAME), None)


def class_list(root: Storage, shard: StoredFile) -> ClassList:
    """The classes that the `classes.txt` beside a shard lists; none where there is none.

    Raises:
        DataError: it is damaged, or names a class twice.
    """
    file = class_list_beside(root, shard)
    if file is None:
        return ClassList()
    with open_file(root, file) as stream:
        return ClassList.parse(stream.read(), where=root.at(file.name))


def _alternatives(pattern: str) -> list[str]:
    from braceexpand import braceexpand

    if is_address(pattern):
        raise UsageError(
            f"{pattern!r} is an address; the path of a split is relative to the root: give that one (root)"
        )
    try:
        return list(braceexpand(pattern))
    except ValueError as error:
        raise UsageError(f"the braces of pattern {pattern!r} do not balance") from error


def _matching(
    root: Storage, folder: str, parts: tuple[str, ...], listed: Callable[[str], list[StoredFile]]
) -> Iterator[StoredFile]:
    first, rest = parts[0], parts[1:]
    if not rest:
        yield from (file for file in listed(folder) if _named(first, PurePosixPath(file.name).name))
        for name in root.folders(folder) if isinstance(root, FolderStorage) else ():
            if name.endswith(".tar") and _named(first, name):  # unpacked: opening it says so
                yield StoredFile(str(PurePosixPath(folder, name)), -1)
    elif not _is_wild(first):
        yield from _matching(root, str(PurePosixPath(folder, first)), rest, listed)
    else:
        if first == "**":
            yield from _matching(root, folder, rest, listed)
        for name in root.folders(folder):
            if _named(first, name):
                yield from _matching(root, str(PurePosixPath(folder, name)), parts if first == "**" else rest, listed)


def _is_wild(text: str) -> bool:
    return any(letter in text for letter in _WILD)


def _named(pattern: str, name: str) -> bool:
    return fnmatchcase(name, pattern) if _is_wild(pattern) else name == pattern
