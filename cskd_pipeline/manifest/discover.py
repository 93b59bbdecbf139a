"""A manifest for data that comes without one: a folder of images or shards, or a shard pattern."""

from __future__ import annotations

from pathlib import Path

from cskd_pipeline.errors import DataError, UsageError
from cskd_pipeline.manifest.manifest import Manifest, Split
from cskd_pipeline.manifest.shards import SPLIT_FIELD, expand_shards, root_and_pattern

SPLITS = ("train", "val", "test")


def describe_folder(folder: Path) -> Manifest:
    """The manifest of a folder: shards `<split>-*.tar`, split folders, or class folders alone.

    The classes of image folders are those of the training split, so that a class missing from `val/` is found
    when `val/` is indexed, and never shifts the labels behind it.

    Raises:
        DataError: the folder holds none of these layouts.
    """
    name = folder.absolute().name or "data"
    shards = {split: pattern for split in SPLITS if (pattern := _shard_pattern(folder, split))}
    if shards:
        splits = {split: Split("tar", pattern) for split, pattern in shards.items()}
        return Manifest(name, splits=splits)
    if any(folder.glob("*.tar")):
        raise UsageError(
            f"{folder} holds tar files, but none is called <split>-*.tar with split {', '.join(SPLITS)}; "
            f"name them by a pattern such as '{folder}/*.tar'"
        )
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


def describe_pattern(text: str) -> tuple[Manifest, Path]:
    """The manifest of a shard pattern and its root.

    With `{split}` in it the splits are those that match files; without, the whole is called "train".

    Raises:
        UsageError, DataError: as `expand_shards`, or no split matches a file.
    """
    root, pattern = root_and_pattern(text)
    name = root.absolute().name or "data"
    if SPLIT_FIELD not in text:
        expand_shards(root, pattern)
        return Manifest(name, splits={"train": Split("tar", pattern)}), root
    found = {}
    for split in SPLITS:
        candidate = pattern.replace(SPLIT_FIELD, split)
        try:
            expand_shards(root, candidate)
        except DataError:
            continue
        found[split] = Split("tar", candidate)
    if not found:
        raise DataError(f"{text!r} matches no file for split {', '.join(SPLITS)}; check the folder and the pattern")
    return Manifest(name, splits=found), root


def class_folders(folder: Path) -> tuple[str, ...]:
    """The names of the folders inside `folder`, sorted; hidden ones do not count."""
    return tuple(sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith(".")))


def _shard_pattern(folder: Path, split: str) -> str | None:
    for pattern in (f"{split}-*.tar", f"{split}_*.tar", f"{split}.tar"):
        if any(folder.glob(pattern)):
            return pattern
    return None
