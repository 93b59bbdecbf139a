"""The samples of WebDataset shards: `KEY.jpg` (or .jpeg, .png, .webp) beside `KEY.cls`, the label or the class's name.

As in WebDataset, a member's key ends at the first dot of its last path component.
"""

from __future__ import annotations

import dataclasses
import functools
import tarfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import PurePosixPath
from typing import BinaryIO

from cskd_pipeline.data.class_list import ClassList, LabelTexts, no_label
from cskd_pipeline.data.decode import HEADER_BYTES, bombs_are_errors, image_size
from cskd_pipeline.data.listing import IMAGE_SUFFIXES, UNREAD_SUFFIXES, Listing
from cskd_pipeline.data.shards import open_file
from cskd_pipeline.errors import DataError
from cskd_pipeline.storage import Storage, StoredFile
from cskd_pipeline.storage.durable import reading

_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZ": "bzip2", b"\xfd7": "xz", b"\x28\xb5": "zstd"}
_LONGEST_LABEL = 1024
"""Bytes."""

_LIKELY_CLASSES = 1 << 16
"""Without a class list, a label from here on must be below ten times the number of images, or it is no label."""


@dataclasses.dataclass(slots=True)
class _Parts:
    image: tarfile.TarInfo | None = None
    label: str | None = None
    size: tuple[int, int] | None = None


def list_tars(
    root: Storage,
    shards: Sequence[StoredFile],
    *,
    classes: ClassList,
    measure: bool = False,
    threads: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Listing:
    """The samples of `shards`, each shard's in member order.

    Args:
        root: where they lie.
        shards: the tars.
        classes: what the classes may be called in labels; empty: labels are numbers, and these the classes' names.
        measure: look into the images' headers as well, where they are read through anyway.
        threads: shards to read at a time.
        progress: called with the images found so far, and how many there will be if the other shards are like these.

    Raises:
        DataError: a shard is compressed, damaged or cut short; a label is missing, has no image, is no number or
            names no class, or several; two samples share a key.
    """
    listing, texts = Listing(classes.names), LabelTexts(classes)
    file_of_key: dict[str, str] = {}
    list_one = functools.partial(_samples, root, measure=measure)
    bytes_read, bytes_in_all = 0, sum(file.size for file in shards)
    with bombs_are_errors(), ThreadPoolExecutor(threads) as pool:
        found = pool.map(list_one, shards) if threads > 1 else map(list_one, shards)
        try:
            for file, samples in zip(shards, found, strict=True):
                _add(listing, texts, samples, file_of_key, name=file.name, where=root.at(file.name))
                bytes_read += file.size
                if progress is not None:
                    progress(len(listing.keys), round(len(listing.keys) * bytes_in_all / max(1, bytes_read)))
        finally:
            pool.shutdown(cancel_futures=True)
    texts.settle(listing.labels)
    if not classes and listing.labels:
        listing.classes = _numbered_classes(listing)
    return listing


def _numbered_classes(listing: Listing) -> tuple[str, ...]:
    last = max(listing.labels)
    if last >= max(_LIKELY_CLASSES, 10 * len(listing.labels)):
        row, count = listing.labels.index(last), len(listing.labels)
        key, file = listing.keys[row], listing.files[listing.file_ids[row]]
        raise DataError(
            f"sample {key!r} of {file} has label {last} ({key}.cls) among {count} images: labels number the classes "
            "from 0, and this looks like something else; correct it, or put a classes.txt beside the shards"
        )
    return tuple(str(label) for label in range(last + 1))


def _add(
    listing: Listing,
    texts: LabelTexts,
    samples: dict[str, _Parts],
    file_of_key: dict[str, str],
    *,
    name: str,
    where: str,
) -> None:
    file_id, classes, shard = listing.add_file(name), listing.classes, where
    for key, parts in samples.items():
        where = f"sample {key!r} of {shard}"
        if parts.image is None:
            raise DataError(f"{where} has a label ({key}.cls) and no image; repack the shard")
        if parts.label is None:
            raise DataError(f"{where} has an image ({parts.image.name}) and no label {key}.cls; repack the shard")
        label = texts.number(parts.label, where=f"{shard}: {key}.cls")
        if classes and label >= len(classes):
            raise DataError(
                f"{where} has label {label}, but there are {len(classes)} classes (0 to {len(classes) - 1})"
            )
        if key in file_of_key:
            raise DataError(f"{where} occurs in {file_of_key[key]} too; keys must be unique in a split")
        file_of_key[key] = shard
        listing.add(
            key,
            label=label,
            file_id=file_id,
            offset=parts.image.offset_data,
            length=parts.image.size,
            size=parts.size,
        )
    texts.require_known()


def _samples(root: Storage, file: StoredFile, *, measure: bool) -> dict[str, _Parts]:
    samples: dict[str, _Parts] = {}
    unread: dict[str, str] = {}
    where = root.at(file.name)
    with reading(where), open_file(root, file) as stream:
        _refuse_compression(stream, where)
        for member in _members(stream, where):
            _, _, field = PurePosixPath(member.name).name.partition(".")
            key = str(PurePosixPath(member.name))[: -len(field) - 1]
            field = field.lower()
            if f".{field}" in IMAGE_SUFFIXES:
                parts = samples.setdefault(key, _Parts())
                if parts.image is not None:
                    raise DataError(f"{where} holds {parts.image.name} and {member.name}: two images of one key")
                parts.image = member
                parts.size = _size(stream, member) if measure else None
            elif field == "cls":
                parts = samples.setdefault(key, _Parts())
                if parts.label is not None:
                    raise DataError(f"{where} holds {member.name} twice; repack the shard")
                parts.label = _label(stream, member, where)
            elif field.endswith(IMAGE_SUFFIXES):
                # "a.b.jpg" is field "b.jpg" of key "a": an image that would go missing without a word.
                raise DataError(f"{where}: {member.name} has a dot in its key; rename the samples without dots")
            elif PurePosixPath(field or "x").suffix in UNREAD_SUFFIXES or f".{field}" in UNREAD_SUFFIXES:
                unread[key] = member.name  # may be the mask or the depth of another image
    for key, name in unread.items():
        if key not in samples or samples[key].image is None:
            raise DataError(f"{where}: images such as {name} are not read; repack the shard with JPEG, PNG or WebP")
    return samples


def _members(stream: BinaryIO, file: str) -> Iterator[tarfile.TarInfo]:
    """The regular members, by their headers; damage anywhere up to the end of the file is an error."""
    try:
        with tarfile.open(fileobj=stream, mode="r:", encoding="utf-8") as archive:
            while (member := archive.next()) is not None:
                if any("\udc80" <= letter <= "\udcff" for letter in member.name):
                    raise DataError(f"{file}: the name {member.name!a} is not UTF-8; repack the shard")
                hidden = PurePosixPath(member.name).name.startswith(".")
                if member.isdir() or hidden:
                    continue
                if not member.isreg() or member.issparse():
                    raise DataError(f"{file}: {member.name} is not a plain file; repack the shard")
                yield member  # its taker may move the stream, but not back
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


def _size(stream: BinaryIO, member: tarfile.TarInfo) -> tuple[int, int] | None:
    """Height and width by the beginning of an image; None where it takes more of it, or it is broken."""
    stream.seek(member.offset_data)
    try:
        return image_size(stream.read(min(member.size, HEADER_BYTES)), name=member.name)
    except DataError:
        return None


def _label(stream: BinaryIO, member: tarfile.TarInfo, file: str) -> str:
    stream.seek(member.offset_data)
    text = stream.read(min(member.size, _LONGEST_LABEL)).decode("utf-8-sig", "replace").strip()
    if member.size > _LONGEST_LABEL:
        raise no_label(f"{text[:20]} ...", where=f"{file}: {member.name}")
    return text


def _refuse_compression(stream: BinaryIO, file: str) -> None:
    kind = _COMPRESSED.get(stream.read(2))
    stream.seek(0)
    if kind:
        raise DataError(f"{file} is compressed ({kind}), which rules out random access; decompress it to plain .tar")
