"""The samples of a list: a text file with a line FILE LABEL for each, separated by blanks, tabs or commas."""

from __future__ import annotations

import csv
import itertools
import os
import re
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import TextIO

from cskd_pipeline.data.class_list import ClassList, LabelTexts, some
from cskd_pipeline.data.listing import IMAGE_SUFFIXES, Listing
from cskd_pipeline.errors import DataError
from cskd_pipeline.storage.durable import reading
from cskd_pipeline.storage.names import native, utf8

LIST_SUFFIXES = (".txt", ".csv", ".tsv")

_FILE_COLUMNS = ["filename", "file_name", "file", "filepath", "file_path", "path", "image", "image_name", "image_path"]
_FILE_COLUMNS += ["image_id", "imageid", "img", "img_path", "id"]
_LABEL_COLUMNS = ["label", "labels", "class", "cls", "class_id", "class_idx", "class_index", "label_id", "target"]
_LABEL_COLUMNS += ["category", "category_id", "class_name", "label_name", "wnid", "synset", "predictionstring"]
"""Words of a heading, in any case; the first that occurs counts."""

_BLANKS = re.compile(r"(.+?\.(?:jpe?g|png|webp))\s+(\S.*)", re.IGNORECASE)
_ODD = re.compile(r"^/|//|(^|/)\.")
"""In a name that may not be the shortest of its file."""

_ENDINGS = ("", *IMAGE_SUFFIXES, ".JPEG", ".JPG", ".PNG", ".WEBP")


def list_files(root: Path, path: str, file: str, *, classes: ClassList) -> Listing:
    """The images that a list names, keyed by their path below `root / path`, else below the root, without its suffix.

    Args:
        root: the data set's root.
        path: the images' folder, relative to the root; names in the list are relative to it, to the root or to the
            list's own folder, whichever holds the first of them. A name may lack its suffix.
        file: the list, relative to the root. Its first line may be a heading; without one a line's first two columns
            are file and label.
        classes: what the classes may be called in labels; empty: labels are numbers, and these the classes' names.

    Raises:
        DataError: the list or a file is missing, a label is missing, unknown or ambiguous, a file is listed twice or
            of a kind that is not read, or what the list gives are no labels.
    """
    where = root / native(file)
    folder = root / native(path)
    listing, texts = Listing(classes.names), LabelTexts(classes, doubt=True)
    lines: dict[str, int] = {}
    missing: list[str] = []
    with reading(where), _opened(where) as stream:
        rows = _rows(stream, where)
        base, ending = None, ""
        for line, name, text in rows:
            if base is None:
                bases = list(dict.fromkeys((folder, root, where.parent)))
                base = next((base for base in bases if _found(base, name, "")), None)
                if base is None:
                    raise DataError(
                        f"{where} line {line} names {name!r}, which is in none of {', '.join(map(str, bases))}; a line "
                        "is FILE LABEL, relative to one of these; a heading needs the words file and label"
                    )
            found = _found(base, name, ending)
            if found is None:
                missing.append(name)
                continue
            ending, length = found
            below = _below(root, base, name + ending, where=f"{where} line {line}")
            if _suffix(below).lower() not in IMAGE_SUFFIXES:
                raise DataError(f"{where} line {line} names {name!r}; {', '.join(IMAGE_SUFFIXES)} files are read")
            if below in lines:
                raise DataError(f"{where} names {name!r} on lines {lines[below]} and {line}; keep one of them")
            lines[below] = line
            label = texts.number(text, where=f"{where} line {line}: the label")
            if classes and label >= len(classes):
                raise DataError(
                    f"{where} line {line} has label {label}, but there are {len(classes)} classes: labels go "
                    f"from 0 to {len(classes) - 1}"
                )
            key = below.removeprefix("" if path == "." else f"{path}/")
            key = key[: -len(_suffix(key))]
            listing.add(key, label=label, file_id=listing.add_file(below), offset=0, length=length)
    if missing:
        raise DataError(
            f"{where} names {len(missing)} files that are not there: {some(missing)}; complete the copy, or "
            "correct the list"
        )
    texts.settle(listing.labels)
    _require_own_keys(listing, where)
    if not classes and listing.labels:
        listing.classes = _numbered(listing, where)
    listing.left_out = _unlisted(root, lines)
    return listing


def list_beside(root: Path, folder: str, words: Sequence[str]) -> tuple[str, str] | None:
    """The folder of images and the list of a split whose images lie in one folder, relative to the root.

    None where the split's folder has class folders, or no image, or there is no list: `SPLIT.txt` (or .csv, .tsv)
    beside it, else any such file inside it.

    Args:
        root: the data set's root.
        folder: the split's folder, relative to it.
        words: what the list may be called.

    Raises:
        DataError: there are several lists.
    """
    inside = [entry.name for entry in os.scandir(root / native(folder)) if entry.is_dir() and entry.name[0] != "."]
    if inside not in ([], ["images"]):
        return None
    images = "/".join([folder, *inside])
    if not _any_image(root / native(images)):
        return None
    lists = [utf8(e.name) for e in os.scandir(root) if _is_list(e) and Path(e.name).stem.lower() in words]
    if not lists:
        lists = [f"{folder}/{utf8(e.name)}" for e in os.scandir(root / native(folder)) if _is_list(e)]
    if len(lists) > 1:
        raise DataError(
            f"{root} has {len(lists)} lists for the images in {folder}: {some(sorted(lists))}; keep one, or name it in "
            "a manifest (source: list)"
        )
    return (images, lists[0]) if lists else None


def _is_list(entry: os.DirEntry[str]) -> bool:
    return Path(entry.name).suffix.lower() in LIST_SUFFIXES and entry.name[0] != "." and entry.name != "classes.txt"


def _any_image(folder: Path) -> bool:
    with os.scandir(folder) as entries:
        return any(Path(entry.name).suffix.lower() in IMAGE_SUFFIXES for entry in entries)


def _opened(where: Path) -> TextIO:
    if not where.is_file():
        raise DataError(f"the list {where} does not exist; a split's list is named relative to the root")
    return where.open(encoding="utf-8-sig", newline="")


def _rows(stream: TextIO, where: Path) -> Iterator[tuple[int, str, str]]:
    """Line, file and label of each row."""
    try:
        cells = _cells(stream, where)
        line, first = next(cells, (0, []))
        if not line:
            raise DataError(f"the list {where} is empty; a line is FILE LABEL")
        heading = [cell.strip().lower() for cell in first]
        names = [heading.index(word) for word in _FILE_COLUMNS if word in heading]
        labels = [heading.index(word) for word in _LABEL_COLUMNS if word in heading]
        columns, boxes = (0, 1), False
        if names and labels:
            columns = names[0], labels[0]
            boxes = heading[columns[1]] == "predictionstring"  # Kaggle's: a class, its box, a class, ...
        else:
            cells = itertools.chain([(line, first)], cells)
        for line, row in cells:
            if len(row) <= max(columns):
                raise DataError(f"{where} line {line} is {' '.join(row)!r}; a line is FILE LABEL")
            text = row[columns[1]].strip()
            yield line, row[columns[0]].strip().removeprefix("./"), text.split(" ")[0] if boxes else text
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"the list {where} cannot be read: {error}") from error


def _cells(stream: TextIO, where: Path) -> Iterator[tuple[int, list[str]]]:
    """The number and the cells of each line that is not empty."""
    start = stream.tell()
    first = next((line for line in stream if line.strip()), "")
    stream.seek(start)
    delimiter = next((mark for mark in "\t,;" if mark in first), None)
    if delimiter in (",", ";") and where.suffix.lower() == ".txt" and _BLANKS.fullmatch(first.strip()):
        delimiter = None  # a comma in a file's name
    if delimiter is not None:
        reader = csv.reader(stream, delimiter=delimiter)
        for row in reader:
            if any(cell.strip() for cell in row):
                yield reader.line_num, row
        return
    for number, line in enumerate(stream, start=1):
        text = line.strip()
        if text:
            match = _BLANKS.fullmatch(text)
            yield number, [*match.groups()] if match else text.rsplit(None, 1)


def _found(base: Path, name: str, ending: str) -> tuple[str, int] | None:
    """The ending that a name lacks, and the length of its file; None where there is none."""
    file = os.path.join(base, native(name))  # noqa: PTH118
    for tried in ("",) if _suffix(name).lower() in IMAGE_SUFFIXES else (ending, *_ENDINGS):
        try:
            found = os.stat(file + tried)  # noqa: PTH116
        except (FileNotFoundError, NotADirectoryError):
            continue
        if stat.S_ISREG(found.st_mode):
            return tried, found.st_size
    return None


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1]  # noqa: PTH122  (a million times)


def _below(root: Path, base: Path, name: str, *, where: str) -> str:
    """A file's name relative to the root."""
    top, folder = utf8(root), utf8(base)
    if not _ODD.search(name) and ".." not in folder and f"{folder}/".startswith(f"{top}/"):
        return f"{folder}/{name}"[len(top) + 1 :]
    top, path = os.path.normpath(top), os.path.normpath(os.path.join(folder, name))  # noqa: PTH118
    if not path.startswith(f"{top}/"):
        raise DataError(f"{where} names {name!r}, which does not lie below {root}; name a folder above it as the root")
    return path[len(top) + 1 :]


def _require_own_keys(listing: Listing, where: Path) -> None:
    if len(set(listing.keys)) < len(listing.keys):
        seen: dict[str, int] = {}
        for row, key in enumerate(listing.keys):
            if key in seen:
                one, two = (listing.files[listing.file_ids[place]] for place in (seen[key], row))
                raise DataError(f"{one} and {two}, both in {where}, share the key {key!r}; rename or remove one")
            seen[key] = row


def _numbered(listing: Listing, where: Path) -> tuple[str, ...]:
    """The numbers as names of the classes."""
    count, last = len(listing.labels), max(listing.labels)
    if (count > 2 and len(set(listing.labels)) == count) or last >= 10 * count:
        raise DataError(
            f"the labels in {where} go up to {last} for {count} images, {len(set(listing.labels))} of them different: "
            "this looks like a running number; give a list of labels, or put a classes.txt beside it"
        )
    return tuple(str(label) for label in range(last + 1))


def _unlisted(root: Path, lines: dict[str, int]) -> list[str]:
    """Images that lie beside listed ones, and are not listed."""
    folders = sorted({str(PurePosixPath(name).parent) for name in lines})
    found = []
    for folder in folders:
        with reading(root / native(folder)), os.scandir(root / native(folder)) as entries:
            for entry in entries:
                name = utf8(entry.name) if folder == "." else f"{folder}/{utf8(entry.name)}"
                if Path(entry.name).suffix.lower() in IMAGE_SUFFIXES and entry.name[0] != "." and name not in lines:
                    found.append(name)
    return sorted(found)
