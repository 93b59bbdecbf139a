"""A manifest for data that comes without one: a folder of images or shards, or a shard pattern."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path

from cskd_pipeline.data.manifest import Manifest, Split
from cskd_pipeline.data.root import Root, address_of, images_in_folders
from cskd_pipeline.data.shards import SPLIT_FIELD, root_and_pattern
from cskd_pipeline.data.stored_shards import find_shards, has_shards, storage_and_pattern
from cskd_pipeline.errors import DataError, UsageError
from cskd_pipeline.storage import Storage, is_address

SPLITS = ("train", "val", "test")


def describe_folder(folder: Path) -> Manifest:
    """The manifest of a folder: shards `<split>-*.tar`, split folders, or class folders alone.

    The classes of image folders are those of the training split, so that a class missing from `val/` is found
    when `val/` is indexed, and never shifts the labels behind it.

    Raises:
        DataError: the folder holds none of these layouts.
    """
    name = _name_of(folder)
    shards = _shard_splits(str(folder), (file.name for file in folder.iterdir()))
    if shards:
        return Manifest(name, splits=shards)
    named = [split for split in SPLITS if (folder / split).is_dir()]
    if named:
        splits = {split: Split("folder", split) for split in named}
        return Manifest(name, classes=class_folders(folder / named[0]), splits=splits)
    classes = class_folders(folder)
    if not classes:
        raise DataError(
            f"{folder} holds no data set: expected train/, val/, test/ with class folders in them, "
            "class folders alone, or shards called <split>-*.tar"
        )
    return Manifest(name, classes=classes, splits={"train": Split("folder", ".")})


def describe_storage(storage: Storage) -> Manifest:
    """The manifest of a folder of shards `<split>-*.tar` in object storage.

    Raises:
        UsageError: it holds folders, or tars of other names.
        DataError: it holds none of either, or there is no such bucket.
    """
    names = (file.name for file in storage.files(deep=False))
    shards = _shard_splits(storage.address, names)
    if shards:
        return Manifest(_name_of(storage), splits=shards)
    if storage.folders():
        raise images_in_folders(storage.address)
    raise DataError(f"{storage.address} holds no data set: expected shards called <split>-*.tar")


def describe_pattern(text: str) -> tuple[Manifest, Root]:
    """The manifest of a shard pattern and its root.

    With `{split}` in it the splits are those that match files; without, the whole is called "train".

    Raises:
        UsageError, DataError, RetryError: as `find_shards`, or no split matches a file.
    """
    root: Root
    root, pattern = storage_and_pattern(text) if is_address(text) else root_and_pattern(text)
    if SPLIT_FIELD not in text:
        find_shards(root, pattern)
        return Manifest(_name_of(root), splits={"train": Split("tar", pattern)}), root
    candidates = {split: pattern.replace(SPLIT_FIELD, split) for split in SPLITS}
    found = {split: Split("tar", candidate) for split, candidate in candidates.items() if has_shards(root, candidate)}
    if not found:
        raise DataError(f"{text!r} matches no file for split {', '.join(SPLITS)}; check the folder and the pattern")
    return Manifest(_name_of(root), splits=found), root


def class_folders(folder: Path) -> tuple[str, ...]:
    """The names of the folders inside `folder`, sorted; hidden ones do not count."""
    return tuple(sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith(".")))


def _shard_splits(folder: str, names: Iterable[str]) -> dict[str, Split]:
    """The splits that the files of a folder are named for; none where it has no tar."""
    tars = [name for name in names if name.endswith(".tar")]
    splits = {}
    for split in SPLITS:
        patterns = (f"{split}-*.tar", f"{split}_*.tar", f"{split}.tar")
        named = [pattern for pattern in patterns if any(fnmatchcase(tar, pattern) for tar in tars)]
        if named:
            splits[split] = Split("tar", named[0])
    if tars and not splits:
        raise UsageError(
            f"{folder} holds tar files, but none is called <split>-*.tar with split {', '.join(SPLITS)}; "
            f"name them by a pattern such as '{folder}/*.tar'"
        )
    return splits


def _name_of(root: Root) -> str:
    return address_of(root).rpartition("/")[2] or "data"
