"""What a walk over a copy of a data set finds, before anything is ordered or measured."""

from __future__ import annotations

import dataclasses

from cskd_pipeline.data.images import Span
from cskd_pipeline.storage import is_address

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
PARQUET_SUFFIX = ".parquet"

# Images that are not read, or not by that name: silently leaving them out would make another data set of it.
_UNREAD = """apng arw avif bmp cr2 dds dib dng exr gif heic heif ico j2k jfif jfi jif jp2 jpe jpx jxl nef pbm pcx pgm
pnm ppm psd qoi tga tif tiff xbm xpm"""
UNREAD_SUFFIXES = frozenset(f".{name}" for name in _UNREAD.split())

_BEGINNINGS = {
    b"\xff\xd8\xff": ".jpg",
    b"\x89PNG\r\n\x1a\n": ".png",
    b"GIF8": ".gif",
    b"II*\0": ".tiff",
    b"MM\0*": ".tiff",
    b"\xff\x0a": ".jxl",
    b"\0\0\0\x0cJXL ": ".jxl",
    b"\0\0\0\x0cjP  ": ".jp2",
}


def image_kind(start: bytes) -> str:
    """The suffix that images beginning with these 16 bytes have; "" where they are none that is known."""
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        return ".webp"
    if start[4:8] == b"ftyp" and start[8:12] in (b"avif", b"avis", b"heic", b"heix", b"mif1"):
        return ".avif" if start[8:10] == b"av" else ".heic"
    return next((suffix for beginning, suffix in _BEGINNINGS.items() if start.startswith(beginning)), "")


def parquet_remedy(place: str) -> str:
    """What to do about parquet files, which lie at `place`."""
    download = "download them and " if is_address(place) else ""
    return (
        f"images in parquet files cannot be read one by one; {download}copy them to tar shards, once: cskd-pipeline "
        f"pack --data {place} --out FOLDER"
    )


@dataclasses.dataclass(slots=True)
class Listing:
    """The samples of one split in the order they were found; the lists of samples have one length.

    Attributes:
        classes: class names in label order.
        files: names of the data files, relative to the data set's root (or absolute where they lie elsewhere).
        keys, labels: one a sample.
        file_ids: position of the sample's file in `files`.
        offsets, lengths: where its image lies in the file, in bytes.
        sizes: (height, width) of its image, or None where that is not known yet.
        left_out: names of the files and folders that were found beside the images and are none.
    """

    classes: tuple[str, ...]
    files: list[str] = dataclasses.field(default_factory=list)
    keys: list[str] = dataclasses.field(default_factory=list)
    labels: list[int] = dataclasses.field(default_factory=list)
    file_ids: list[int] = dataclasses.field(default_factory=list)
    offsets: list[int] = dataclasses.field(default_factory=list)
    lengths: list[int] = dataclasses.field(default_factory=list)
    sizes: list[tuple[int, int] | None] = dataclasses.field(default_factory=list)
    left_out: list[str] = dataclasses.field(default_factory=list)

    def add_file(self, name: str) -> int:
        """Registers a data file and returns its id."""
        self.files.append(name)
        return len(self.files) - 1

    def span(self, row: int) -> Span:
        """Where a sample's image lies."""
        return Span(self.files[self.file_ids[row]], self.offsets[row], self.lengths[row])

    def add(
        self, key: str, *, label: int, file_id: int, offset: int, length: int, size: tuple[int, int] | None = None
    ) -> None:
        """Appends one sample."""
        self.keys.append(key)
        self.labels.append(label)
        self.file_ids.append(file_id)
        self.offsets.append(offset)
        self.lengths.append(length)
        self.sizes.append(size)
