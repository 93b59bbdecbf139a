"""The samples of WebDataset shards: `KEY.jpg` (or .jpeg, .png, .webp) beside `KEY.cls`, the label in decimal.

As in WebDataset, a member's key ends at the first dot of its last path component.
"""

from __future__ import annotations

import dataclasses
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from cskd_pipeline.errors import DataError
from cskd_pipeline.manifest import read_class_list
from cskd_pipeline.samples.listing import IMAGE_SUFFIXES, Listing

_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZ": "bzip2", b"\xfd7": "xz", b"\x28\xb5": "zstd"}
_LONGEST_LABEL = 20


@dataclasses.dataclass(slots=True)
class _Parts:
    image: tarfile.TarInfo | None = None
    label: int | None = None


def list_tars(root: Path, files: list[Path], *, classes: tuple[str, ...]) -> Listing:
    """The samples of the shards `files`, each shard's in member order.

    Args:
        root: the data set's root, to which the listed file names are relative.
        files: the shards.
        classes: the class names; empty: those of `classes.txt` beside the first shard, else the labels' numbers.

    Raises:
        DataError: a shard is compressed, damaged or cut short; a label is missing, has no image, is no number or
            names no class; two samples share a key.
    """
    if not classes and (names := files[0].parent / "classes.txt").is_file():
        classes = read_class_list(names)
    listing = Listing(classes)
    file_of_key: dict[str, Path] = {}
    for file in files:
        file_id = listing.add_file(str(file.relative_to(root)) if file.is_relative_to(root) else str(file))
        for key, parts in _samples(file).items():
            where = f"sample {key!r} of {file}"
            if parts.image is None:
                raise DataError(f"{where} has a label ({key}.cls) and no image; repack the shard")
            if parts.label is None:
                raise DataError(f"{where} has an image ({parts.image.name}) and no label {key}.cls; repack the shard")
            if classes and parts.label >= len(classes):
                raise DataError(
                    f"{where} has label {parts.label}, but there are {len(classes)} classes (0 to {len(classes) - 1})"
                )
            if key in file_of_key:
                raise DataError(f"{where} occurs in {file_of_key[key]} too; keys must be unique in a split")
            file_of_key[key] = file
            listing.add(
                key,
                label=parts.label,
                file_id=file_id,
                offset=parts.image.offset_data,
                length=parts.image.size,
            )
    if not classes and listing.labels:
        listing.classes = tuple(str(label) for label in range(max(listing.labels) + 1))
    return listing


def _samples(file: Path) -> dict[str, _Parts]:
    samples: dict[str, _Parts] = {}
    try:
        with file.open("rb") as stream:
            _refuse_compression(stream, file)
            for member in _members(stream, file):
                _, _, field = PurePosixPath(member.name).name.partition(".")
                key = str(PurePosixPath(member.name))[: -len(field) - 1]
                field = field.lower()
                if f".{field}" in IMAGE_SUFFIXES:
                    parts = samples.setdefault(key, _Parts())
                    if parts.image is not None:
                        raise DataError(f"{file} holds {parts.image.name} and {member.name}: two images of one key")
                    parts.image = member
                elif field == "cls":
                    parts = samples.setdefault(key, _Parts())
                    if parts.label is not None:
                        raise DataError(f"{file} holds {member.name} twice; repack the shard")
                    parts.label = _label(stream, member, file)
                elif field.endswith(IMAGE_SUFFIXES):
                    # "a.b.jpg" is field "b.jpg" of key "a": an image that would go missing without a word.
                    raise DataError(f"{file}: {member.name} has a dot in its key; rename the samples without dots")
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror or error}") from error
    return samples


def _members(stream: BinaryIO, file: Path) -> Iterator[tarfile.TarInfo]:
    """The regular members, by their headers; damage anywhere up to the end of the file is an error."""
    try:
        with tarfile.open(fileobj=stream, mode="r:") as archive:
            while (member := archive.next()) is not None:
                hidden = PurePosixPath(member.name).name.startswith(".")
                if member.isdir() or hidden:
                    continue
                if not member.isreg() or member.issparse():
                    raise DataError(f"{file}: {member.name} is not a plain file; repack the shard")
                here = stream.tell()
                yield member
                stream.seek(here)
            # tarfile takes a damaged header, or the end of the file, for the end of the archive.
            stream.seek(archive.offset)
            tail = stream.read(tarfile.BLOCKSIZE)
            if len(tail) < tarfile.BLOCKSIZE:
                raise DataError(f"{file} is cut short: it has no end mark; copy it again")
            if tail.strip(b"\0"):
                raise DataError(f"{file} is damaged at byte {archive.offset}: no tar header there; copy it again")
            while tail := stream.read(1 << 20):
                if tail.strip(b"\0"):
                    raise DataError(f"{file} holds more data behind its end mark (tars joined?); repack the shard")
    except tarfile.TarError as error:
        raise DataError(f"{file} is not an intact tar file ({error}); copy it again") from error


def _label(stream: BinaryIO, member: tarfile.TarInfo, file: Path) -> int:
    stream.seek(member.offset_data)
    text = stream.read(min(member.size, _LONGEST_LABEL)).decode("ascii", "replace").strip()
    if not text.isdecimal() or member.size > _LONGEST_LABEL:
        raise DataError(f"{file}: {member.name} is {text!r}; a label is a decimal number, 0 or more")
    return int(text)


def _refuse_compression(stream: BinaryIO, file: Path) -> None:
    kind = _COMPRESSED.get(stream.read(2))
    stream.seek(0)
    if kind:
        raise DataError(f"{file} is compressed ({kind}), which rules out random access; decompress it to plain .tar")
