"""The samples of an ImageFolder: one folder a class, keys `class/stem`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from cskd_pipeline.data.listing import IMAGE_SUFFIXES, Listing
from cskd_pipeline.errors import DataError

# Image files that are not read: silently leaving them out would make another data set of it.
_UNREAD_SUFFIXES = (".bmp", ".gif", ".tif", ".tiff", ".heic", ".avif", ".jp2", ".ppm")


def list_folder(root: Path, path: str, *, classes: tuple[str, ...]) -> Listing:
    """The images below `root / path`, by class folder.

    Args:
        root: the data set's root.
        path: the split's folder, relative to it.
        classes: the class folders that must be there, in label order; empty: whichever are, sorted.

    Raises:
        DataError: the folder, or a class folder, is missing, unknown or empty; or two files share a key.
    """
    folder = root / path
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; expected one with a folder for every class in it")
    found = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith("."))
    _compare_classes(folder, found=found, expected=classes or tuple(found))
    listing = Listing(classes or tuple(found))
    for label, name in enumerate(listing.classes):
        files_by_key: dict[str, str] = {}
        for file, length in _images(folder / name):
            relative = file.relative_to(folder)
            key = relative.with_suffix("").as_posix()
            if key in files_by_key:
                raise DataError(f"{folder / files_by_key[key]} and {file} share the key {key!r}; rename or remove one")
            files_by_key[key] = str(relative)
            file_id = listing.add_file(str(Path(path) / relative))
            listing.add(key, label=label, file_id=file_id, offset=0, length=length)
        if not files_by_key:
            raise DataError(f"{folder / name} holds no image ({', '.join(IMAGE_SUFFIXES)}); fill or remove it")
    return listing


def folders_below(folder: Path) -> list[Path]:
    """`folder` and every folder below it, a link to a class folder followed, sorted."""
    tops = [folder] + [Path(entry.path) for entry in os.scandir(folder) if entry.is_dir()]
    nested = (Path(parent) for top in tops[1:] for parent, _, _ in os.walk(top))
    return sorted({*tops, *nested})


def _images(folder: Path) -> Iterator[tuple[Path, int]]:
    for parent, children, names in os.walk(folder):
        children.sort()
        for name in sorted(names):
            suffix = Path(name).suffix.lower()
            file = Path(parent) / name
            if name.startswith("."):
                continue
            if suffix in _UNREAD_SUFFIXES:
                raise DataError(f"{file}: {suffix} images are not read; convert it to PNG or remove it")
            if suffix in IMAGE_SUFFIXES:
                try:
                    yield file, file.stat().st_size
                except OSError as error:
                    raise DataError(f"{file} cannot be read: {error.strerror or error}") from error


def _compare_classes(folder: Path, *, found: list[str], expected: tuple[str, ...]) -> None:
    if not found:
        raise DataError(f"{folder} holds no class folder; expected {_some(expected) or 'one folder a class'}")
    missing = sorted(set(expected) - set(found))
    if missing:
        raise DataError(
            f"{folder} lacks {len(missing)} of {len(expected)} class folders: {_some(missing)}; "
            "the copy is incomplete, or it is another data set"
        )
    unknown = sorted(set(found) - set(expected))
    if unknown:
        raise DataError(
            f"{folder} holds {len(unknown)} folders that are no class: {_some(unknown)}; "
            "remove them, or describe the set in a manifest of your own"
        )


def _some(names: list[str] | tuple[str, ...], most: int = 5) -> str:
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")
