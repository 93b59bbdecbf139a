"""The canonical order of one split, and random access to its images."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from cskd_pipeline.data.decode import decode_rgb
from cskd_pipeline.data.image_reader import image_reader
from cskd_pipeline.data.index_files import check_columns, identity, map_columns, read_header
from cskd_pipeline.data.jpeg import Box, decode_parts
from cskd_pipeline.data.places import Place
from cskd_pipeline.data.root import location, root_at
from cskd_pipeline.errors import DataError


class SampleIndex:
    """Samples of one split by their index in the canonical order; the columns are memory maps, read-only.

    The order is by hash of the key: the classes are mixed, and neither the order of files nor the layout matters.
    An index can be sent to other processes: what travels is its folder, which they map again.

    Attributes:
        folder: where the index lies.
        name: the data set's name.
        split: the split's name.
        classes: class names in label order.
        left_out: how many files and folders beside the images are none, and some of their names; "" for none.
        digest: 32 hex digits over (key, label) of every sample in order.
        keys: bytes [S], UTF-8.
        labels: int64 [S].
        file_ids, offsets, lengths: int64 [S], where the encoded image lies, in bytes.
        heights, widths: int32 [S], of the stored image in pixels.
        files: bytes [F], UTF-8, the data files.
    """

    def __init__(self, folder: Path, header: dict[str, Any]) -> None:
        """Maps the columns; use `open` to check them as well."""
        columns = map_columns(folder)
        self.folder = folder
        self.name: str = header["name"]
        self.split: str = header["split"]
        self.classes: tuple[str, ...] = tuple(header["classes"])
        self.digest: str = header["digest"]
        self.left_out: str = header.get("left_out", "")
        self.fingerprint: str = header["fingerprint"]
        self.source: str = header["source"]
        self.root = root_at(header["root"])
        self.pattern: str = header["path"]
        self.keys: NDArray[np.bytes_] = columns["keys"]
        self.labels: NDArray[np.int64] = columns["labels"]
        self.file_ids: NDArray[np.int64] = columns["file_ids"]
        self.offsets: NDArray[np.int64] = columns["offsets"]
        self.lengths: NDArray[np.int64] = columns["lengths"]
        self.heights: NDArray[np.int32] = columns["heights"]
        self.widths: NDArray[np.int32] = columns["widths"]
        self.files: NDArray[np.bytes_] = columns["files"]
        self._identity = identity(header)
        self._images = image_reader(self.root, whole=self.source == "folder")

    @classmethod
    def open(cls, folder: Path) -> Self:
        """The index in `folder`, its columns checked against their checksums.

        Raises:
            DataError: it is missing, damaged, or of another format version.
        """
        header = read_header(folder)
        if not check_columns(folder, header):
            raise DataError(f"index {folder} is damaged (checksums differ); remove it and index again")
        try:
            return cls(folder.absolute(), header)
        except KeyError as error:
            raise DataError(f"index {folder} is damaged ({error} is missing); remove it and index again") from error

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        return f"SampleIndex({self.name!r}, {self.split!r}, {len(self)} samples, {len(self.classes)} classes)"

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (self.folder, self._identity)

    def key(self, sample: int) -> str:
        """The sample's key."""
        return bytes(self.keys[sample]).decode()

    @property
    def remote(self) -> bool:
        """Whether the images lie in object storage, which a process forked from one that used it cannot read."""
        return not isinstance(self.root, Path)

    def file(self, sample: int) -> Path | str:
        """Path or URL of the data file that holds the sample's image."""
        return location(self.root, self._place(sample).file)

    def read(self, sample: int) -> bytes:
        """The sample's encoded image.

        Raises:
            DataError: its file is gone or not as it was indexed.
            RetryError: object storage refuses or is out of reach.
        """
        try:
            return self._images.read(self._place(sample))
        except DataError as error:
            raise DataError(f"sample {self.key(sample)!r}: {error}") from error

    def read_all(self, samples: Sequence[int]) -> Iterator[bytes]:
        """As `read`, for each in order; from object storage they come together, and are kept until they are taken."""
        encoded = self._images.read_all([self._place(sample) for sample in samples])
        for sample in samples:
            try:
                image = next(encoded)
            except DataError as error:
                raise DataError(f"sample {self.key(sample)!r}: {error}") from error
            yield image

    def decode(self, sample: int, encoded: bytes | None = None) -> NDArray[np.uint8]:
        """The sample's pixels, uint8 [h, w, 3] RGB as stored; see `decode_rgb`.

        Args:
            sample: which.
            encoded: what `read` gives of it, where that was done already.

        Raises:
            DataError, RetryError: as `read`, or the image is damaged or not the one that was indexed.
        """
        name = f"sample {self.key(sample)!r} of {self.file(sample)}"
        pixels = decode_rgb(self.read(sample) if encoded is None else encoded, name=name)
        expected = (int(self.heights[sample]), int(self.widths[sample]))
        if pixels.shape[:2] != expected:
            raise DataError(f"{name}: is {pixels.shape[:2]}, {expected} (h, w) when indexed; index the data again")
        return pixels

    def decode_parts(self, sample: int, boxes: Sequence[Box], encoded: bytes | None = None) -> list[NDArray[np.uint8]]:
        """Those pixels of `decode` that lie in each box, uint8 [box.height, box.width, 3]; read and decoded once.

        Raises:
            DataError, RetryError: as `decode`; damage that does not reach the boxes may go unnoticed.
        """
        size = (int(self.heights[sample]), int(self.widths[sample]))
        encoded = self.read(sample) if encoded is None else encoded
        parts = decode_parts(encoded, boxes, size=size)
        if parts is None:
            whole = self.decode(sample, encoded)
            parts = [whole[box.rows, box.columns] for box in boxes]
        return parts

    def class_counts(self) -> NDArray[np.int64]:
        """int64 [C], the number of samples of every class."""
        return np.bincount(self.labels, minlength=len(self.classes))

    def _place(self, sample: int) -> Place:
        file = bytes(self.files[self.file_ids[sample]]).decode()
        return Place(file, int(self.offsets[sample]), int(self.lengths[sample]))


def canonical_order(keys: list[str]) -> NDArray[np.int64]:
    """int64 [S], the listing's rows sorted by the BLAKE2b hash of their keys."""
    hashes = [hashlib.blake2b(key.encode(), digest_size=16).digest() for key in keys]
    return np.array(sorted(range(len(keys)), key=lambda row: (hashes[row], keys[row])), dtype=np.int64)


def order_digest(keys: list[str], labels: list[int]) -> str:
    """32 hex digits over (key, label) of every sample, in the order given."""
    rows = b"".join(f"{key}\0{label}\n".encode() for key, label in zip(keys, labels, strict=True))
    return hashlib.blake2b(rows, digest_size=16).hexdigest()


def _reopen(folder: Path, expected: str) -> SampleIndex:
    # Not checked against the checksums again: every worker of every rank would read it all.
    header = read_header(folder)
    if identity(header) != expected:
        raise DataError(f"index {folder} was replaced while it was in use; start again")
    return SampleIndex(folder, header)
