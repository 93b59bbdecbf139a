"""Shards in object storage: which of them a pattern names, by listing the folders that it names."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from cskd_pipeline.data.root import Root
from cskd_pipeline.data.shards import NoShardsError, alternatives, expand_shards, is_wild, root_and_pattern
from cskd_pipeline.errors import UsageError
from cskd_pipeline.storage import Storage, StoredFile, open_storage

Listed = Callable[[str], list[StoredFile]]


def storage_and_pattern(text: str) -> tuple[Storage, str]:
    """As `root_and_pattern`, for an address.

    Raises:
        UsageError: it names no bucket, or is of a kind that is not read.
    """
    scheme, _, rest = text.partition("://")
    folder, pattern = root_and_pattern(rest)
    if folder == Path():
        raise UsageError(f"{text!r} names no bucket and shards in it; write s3://bucket/path/train-*.tar")
    return open_storage(f"{scheme}://{folder.as_posix()}"), pattern


def stored_shards(storage: Storage, pattern: str) -> list[StoredFile]:
    """The files that `pattern` names, as `expand_shards` gives them; a folder is listed once, and alone.

    Raises:
        UsageError: as `alternatives`, or the pattern holds `**` or `..`.
        NoShardsError: a file that the braces name is missing, or nothing matches.
        DataError: there is no such bucket.
        RetryError: it cannot be listed.
    """
    listed = functools.cache(lambda folder: list(storage.files(folder, deep=False)))
    found: dict[str, StoredFile] = {}
    for alternative in alternatives(pattern):
        parts = PurePosixPath(alternative).parts
        if {"..", "/", "**"} & set(parts):
            raise UsageError(f"pattern {pattern!r}: neither .. nor ** is read in object storage, nor a leading /")
        matches = list(_matching(storage, "", parts, listed))
        if not matches and not is_wild(alternative):
            raise NoShardsError(f"{storage.at(alternative)} does not exist, but the pattern {pattern!r} names it")
        found |= {file.name: file for file in matches}
    if not found:
        raise NoShardsError(f"no file under {storage.address} matches {pattern!r}; check the address and the pattern")
    return list(found.values())


def find_shards(root: Root, pattern: str) -> list[Path] | list[StoredFile]:
    """`expand_shards` or `stored_shards`, as the root may be."""
    return expand_shards(root, pattern) if isinstance(root, Path) else stored_shards(root, pattern)


def has_shards(root: Root, pattern: str) -> bool:
    """Whether `find_shards` finds any, and all that are named.

    Raises:
        UsageError, DataError, RetryError: as `find_shards`, but for `NoShardsError`.
    """
    try:
        return bool(find_shards(root, pattern))
    except NoShardsError:
        return False


def _matching(storage: Storage, folder: str, parts: tuple[str, ...], listed: Listed) -> Iterator[StoredFile]:
    first, rest = parts[0], parts[1:]
    if not rest:
        yield from (file for file in listed(folder) if _named(first, file.name.rpartition("/")[2]))
    elif is_wild(first):
        for name in storage.folders(folder):
            if _named(first, name):
                yield from _matching(storage, f"{folder}/{name}" if folder else name, rest, listed)
    else:
        yield from _matching(storage, f"{folder}/{first}" if folder else first, rest, listed)


def _named(pattern: str, name: str) -> bool:
    return fnmatchcase(name, pattern) if is_wild(pattern) else name == pattern
