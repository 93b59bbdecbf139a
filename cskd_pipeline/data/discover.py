"""A manifest for data that comes without one: a folder of images or shards, or a shard pattern."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path

from cskd_pipeline.data.folder_listing import class_folders
from cskd_pipeline.data.listing import IMAGE_SUFFIXES
from cskd_pipeline.data.manifest import Manifest, Split
from cskd_pipeline.data.root import Root, address_of, images_in_folders
from cskd_pipeline.data.shards import SPLIT_FIELD, root_and_pattern
from cskd_pipeline.data.stored_shards import find_shards, has_shards, storage_and_pattern
from cskd_pipeline.errors import DataError, UsageError
from cskd_pipeline.storage import Storage, is_address
from cskd_pipeline.storage.durable import reading
from cskd_pipeline.storage.names import native, shown, utf8

SPLIT_WORDS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "eval", "evaluation", "dev"),
    "test": ("test", "testing"),
}
"""The splits, and the words that folders and shards are called by for them, in letters of either case."""

SPLITS = tuple(SPLIT_WORDS)
_SPLIT_OF = {word: split for split, words in SPLIT_WORDS.items() for word in words}
_SHARD = re.compile(r"([A-Za-z]+)([-_]?)(.*)\.tar")


def describe_folder(folder: Path) -> tuple[Manifest, tuple[str, ...]]:
    """The manifest of a folder: shards `<split>-*.tar`, split folders, or class folders alone; and what is left out.

    The classes of image folders are those of the training split, so that a class missing from `val/` is found
    when `val/` is indexed, and never shifts the labels behind it.

    Raises:
        UsageError: two folders or kinds of shards are called by words for one split.
        DataError: the folder holds none of these layouts.
        RetryError: it cannot be listed.
    """
    name = _name_of(folder)
    with reading(folder):
        entries = sorted(utf8(entry.name) for entry in folder.iterdir())
    folders = _split_folders(folder)
    shards = {
        split: spec
        for split, spec in _shard_splits(str(folder), entries).items()
        if split not in folders or "*" in spec.path  # `train.tar` beside `train/` is what that was unpacked from
    }
    if shards:
        used = [spec.path for spec in shards.values()] + ["classes.txt"]
        rest = tuple(entry for entry in entries if not any(fnmatchcase(entry, pattern) for pattern in used))
        return Manifest(name, splits=shards), rest
    if folders:
        first = folders[next(iter(folders))]
        splits = {split: Split("folder", word) for split, word in folders.items()}
        rest = tuple(entry for entry in entries if entry not in folders.values())
        return Manifest(name, classes=class_folders(folder / first), splits=splits), rest
    classes = class_folders(folder)
    tars = [entry for entry in entries if entry.endswith(".tar")]
    if tars and not any(_holds_images(folder / native(entry)) for entry in classes):
        raise _unnamed_tars(str(folder))
    if not classes:
        raise DataError(
            f"{folder} holds no data set: expected train/, val/, test/ with class folders in them, "
            "class folders alone, or shards called <split>-*.tar"
        )
    return Manifest(name, classes=classes, splits={"train": Split("folder", ".")}), ()


def describe_storage(storage: Storage) -> Manifest:
    """The manifest of a folder of shards `<split>-*.tar` in object storage.

    Raises:
        UsageError: it holds folders, or tars of other names.
        DataError: it holds none of either, or there is no such bucket.
    """
    names = [file.name for file in storage.files(deep=False)]
    shards = _shard_splits(storage.address, names)
    if shards:
        return Manifest(_name_of(storage), splits=shards)
    if any(name.endswith(".tar") for name in names):
        raise _unnamed_tars(storage.address)
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
    patterns = {word: pattern.replace(SPLIT_FIELD, word) for word in _SPLIT_OF}
    there = {candidate: word for word, candidate in patterns.items() if has_shards(root, candidate)}
    found = {split: Split("tar", candidate) for split, candidate in _by_split(address_of(root), there).items()}
    if not found:
        raise DataError(f"{text!r} matches no file for split {', '.join(SPLITS)}; check the folder and the pattern")
    return Manifest(_name_of(root), splits=found), root


def split_called(word: str) -> str | None:
    """The split that a word such as "Validation" stands for."""
    return _SPLIT_OF.get(word.lower())


def _split_folders(folder: Path) -> dict[str, str]:
    """The folders that are called by a word for a split; none where they are classes among others."""
    inside = class_folders(folder)
    words = [name for name in inside if split_called(name)]
    if len(words) < len(inside) and not any(class_folders(folder / word) for word in words):
        return {}
    return _by_split(str(folder), {word: word for word in words})


def _shard_splits(folder: str, names: Iterable[str]) -> dict[str, Split]:
    """The splits that the tars among the files of a folder are named for."""
    patterns = {}
    for name in names:
        if (match := _SHARD.fullmatch(name)) and split_called(match[1]) and (match[2] or not match[3]):
            patterns[f"{match[1]}{match[2]}*.tar" if match[2] else name] = match[1]
    return {split: Split("tar", pattern) for split, pattern in _by_split(folder, patterns).items()}


def _by_split(folder: str, words: Mapping[str, str]) -> dict[str, str]:
    """From split to the one name whose word stands for it, in the order of `SPLITS`."""
    found = {}
    for split in SPLITS:
        names = [name for name, word in words.items() if split_called(word) == split]
        if len(names) > 1:
            raise UsageError(
                f"{folder} holds {' and '.join(names)}, which both stand for the split {split}; name one of them by a "
                "pattern or a manifest, or rename it"
            )
        if names:
            found[split] = names[0]
    return found


def _unnamed_tars(folder: str) -> UsageError:
    return UsageError(
        f"{folder} holds tar files, but none is called <split>-*.tar with split {', '.join(SPLITS)}; "
        f"name them by a pattern such as '{folder}/*.tar'"
    )


def _holds_images(folder: Path) -> bool:
    with reading(folder):
        return any(entry.suffix.lower() in IMAGE_SUFFIXES for entry in folder.iterdir())


def _name_of(root: Root) -> str:
    return shown(address_of(root).rpartition("/")[2]) or "data"
