"""The samples of an ImageFolder: one folder a class, keys `class/stem`."""

from __future__ import annotations

import os
import stat
import unicodedata
from collections.abc import Iterator
from pathlib import Path

from cskd_pipeline.data.class_list import CLASSES_NAME, some
from cskd_pipeline.data.listing import (
    IMAGE_SUFFIXES,
    PARQUET_SUFFIX,
    UNREAD_SUFFIXES,
    Listing,
    image_kind,
    parquet_remedy,
)
from cskd_pipeline.errors import DataError
from cskd_pipeline.storage.durable import reading
from cskd_pipeline.storage.names import native, utf8

_SYSTEM_FOLDERS = frozenset(
    {"__MACOSX", "@eaDir", "@Recycle", "#recycle", "$RECYCLE.BIN", "System Volume Information", "lost+found"}
)
"""Folders that archivers, network disks and file systems create."""


def class_folders(folder: Path) -> tuple[str, ...]:
    """The names of the folders inside `folder`, sorted; hidden folders and those of `SYSTEM_FOLDERS` are left out.

    Raises:
        DataError: a name is not UTF-8.
    """
    return tuple(_name(entry) for entry in _entries(folder) if not _is_systems(entry) and entry.is_dir())


def list_folder(root: Path, path: str, *, classes: tuple[str, ...], partial: bool = False) -> Listing:
    """The images below `root / path`, by class folder.

    Args:
        root: the data set's root.
        path: the split's folder, relative to it.
        classes: the class folders that must be there, in label order; empty: whichever are, sorted.
        partial: some of these may be missing.

    Raises:
        DataError: the folder, or a class folder, is missing, unknown or empty; two files share a key; or something
            that looks like an image would be left out.
    """
    folder = root / native(path)
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; expected one with a folder for every class in it")
    found = class_folders(folder)
    _compare_classes(folder, found=found, expected=classes or found, partial=partial)
    listing = Listing(classes or found)
    for entry in _entries(folder):
        if _is_systems(entry) or not entry.is_dir():
            if not _is_systems(entry) and _is_image(entry):
                raise DataError(f"{entry.path} is an image of no class; move it into a class folder, or remove it")
            if not (partial and entry.name == CLASSES_NAME):
                listing.left_out.append(_name(entry))
    there = set(found)
    for label, name in enumerate(listing.classes):
        if name not in there:
            continue
        file_by_key: dict[str, str] = {}
        for file, length in _images(folder / native(name), f"{name}/", listing.left_out):
            key = file[: -len(Path(file).suffix)]
            if key in file_by_key:
                raise DataError(
                    f"{folder / file_by_key[key]} and {folder / file} share the key {key!r}; rename or remove one"
                )
            file_by_key[key] = file
            file_id = listing.add_file(file if path == "." else f"{path}/{file}")
            listing.add(key, label=label, file_id=file_id, offset=0, length=length)
        if not file_by_key:
            _refuse_parquet(folder / native(name), root)
            raise DataError(f"{folder / name} holds no image ({', '.join(IMAGE_SUFFIXES)}); fill or remove it")
    return listing


def folders_below(folder: Path) -> list[Path]:
    """`folder` and every folder below it, a link to a class folder followed, sorted."""
    tops = [folder] + [Path(entry.path) for entry in os.scandir(folder) if entry.is_dir()]
    nested = (Path(parent) for top in tops[1:] for parent, _, _ in os.walk(top))
    return sorted({*tops, *nested})


def _images(folder: Path, prefix: str, left_out: list[str]) -> Iterator[tuple[str, int]]:
    """Name below the split's folder and size of every image at any depth; other files' names go to `left_out`."""
    for entry in _entries(folder):
        name = prefix + _name(entry)
        if _is_systems(entry):
            left_out.append(name)
        elif entry.is_dir(follow_symlinks=False):
            yield from _images(Path(entry.path), f"{name}/", left_out)
        elif _is_image(entry):
            yield name, entry.stat().st_size
        else:
            left_out.append(name)


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    with reading(folder), os.scandir(folder) as opened:
        return sorted(opened, key=lambda entry: entry.name)


def _is_systems(entry: os.DirEntry[str]) -> bool:
    return entry.name.startswith(".") or entry.name in _SYSTEM_FOLDERS


def _name(entry: os.DirEntry[str]) -> str:
    name = utf8(entry.name)
    if not name.isascii() and any("\udc80" <= letter <= "\udcff" for letter in name):
        raise DataError(f"{entry.path!a}: the name is not UTF-8; rename it")
    return name


def _is_image(entry: os.DirEntry[str]) -> bool:
    """Whether a file is one of the images that are read.

    Raises:
        DataError: it is an image of another kind or by another name, or none can tell.
    """
    suffix = Path(entry.name).suffix.lower()
    with reading(entry.path):
        try:
            mode = entry.stat().st_mode
        except FileNotFoundError as error:
            raise DataError(f"{entry.path} is a link to nothing; mend or remove it") from error
        if suffix in IMAGE_SUFFIXES and stat.S_ISREG(mode):
            return True
        if stat.S_ISDIR(mode):
            raise DataError(f"{entry.path} is a link to a folder inside a class, which is not followed; move it there")
        if not stat.S_ISREG(mode):
            return False
        with Path(entry.path).open("rb") as file:
            kind = image_kind(file.read(16))
    if kind in IMAGE_SUFFIXES:
        raise DataError(f"{entry.path} is an image by its content, not by its name; call it {kind}, or remove it")
    if kind or suffix in UNREAD_SUFFIXES:
        raise DataError(f"{entry.path}: {kind or suffix} images are not read; convert it to PNG or remove it")
    return False


def holds_images(folder: Path) -> bool:
    """Whether images lie in `folder` itself."""
    return any(Path(entry.name).suffix.lower() in IMAGE_SUFFIXES for entry in _entries(folder))


def _refuse_parquet(folder: Path, place: Path) -> None:
    if any(folder.rglob(f"*{PARQUET_SUFFIX}")):
        raise DataError(f"{folder} holds no image file: {parquet_remedy(str(place))}")


def _compare_classes(folder: Path, *, found: tuple[str, ...], expected: tuple[str, ...], partial: bool) -> None:
    if not found:
        _refuse_parquet(folder, folder)
        flat = ""
        if holds_images(folder):
            flat = (
                f"; for images that lie in it directly, put a list beside it, {folder.name}.txt, with a line FILE "
                "LABEL for each"
            )
        raise DataError(f"{folder} holds no class folder; expected {some(expected) or 'one folder a class'}{flat}")
    missing = sorted(set(expected) - set(found))
    unknown = sorted(set(found) - set(expected))
    twins = {unicodedata.normalize("NFC", name) for name in missing} & {
        unicodedata.normalize("NFC", name) for name in unknown
    }
    if twins:
        raise DataError(
            f"{folder} holds class folders whose names are composed of other Unicode characters than expected: "
            f"{some(sorted(twins))}; rename them (copies by way of macOS do this)"
        )
    if missing and not partial:
        raise DataError(
            f"{folder} lacks {len(missing)} of {len(expected)} class folders: {some(missing)}; "
            "the copy is incomplete, or it is another data set"
        )
    if unknown:
        raise DataError(
            f"{folder} holds {len(unknown)} folders that are no class: {some(unknown)}; "
            "remove them, or describe the set in a manifest of your own"
        )
