"""An index: the canonical order of one split, kept on disk, and random access to its images.

On disk it is a folder of one `.npy` a column and `index.json`, put in place in one step and never changed. `index.json`
is the header: `format_version`, what the data set was, and size and checksum of every column.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from cskd_pipeline.data.cache import put_folder
from cskd_pipeline.data.decode import Box, decode_parts, decode_rgb
from cskd_pipeline.data.images import Span, image_reader
from cskd_pipeline.data.source import root_at
from cskd_pipeline.errors import DataError
from cskd_pipeline.record import digest_json
from cskd_pipeline.storage import FolderStorage, Storage

FORMAT_VERSION = 1
HEADER_NAME = "index.json"

SAMPLE_COLUMNS = {
    "keys": "S",  # UTF-8
    "labels": "i8",
    "file_ids": "i8",
    "offsets": "i8",
    "lengths": "i8",
    "heights": "i4",
    "widths": "i4",
}
"""The columns with one row a sample, and their dtypes (little-endian)."""

COLUMNS = {**SAMPLE_COLUMNS, "files": "S"}
"""All columns; `files` has one row a data file."""

Columns = dict[str, NDArray[Any]]


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
        columns = _map_columns(folder)
        self.folder = folder
        self.name: str = header["name"]
        self.split: str = header["split"]
        self.classes: tuple[str, ...] = tuple(header["classes"])
        self.digest: str = header["digest"]
        self.left_out: str = header.get("left_out", "")
        self.fingerprint: str = header["fingerprint"]
        self.layout: str = header["source"]
        self.root: Storage = root_at(header["root"])
        self.pattern: str = header["path"]
        self.list: str | None = header.get("list")
        self.keys: NDArray[np.bytes_] = columns["keys"]
        self.labels: NDArray[np.int64] = columns["labels"]
        self.file_ids: NDArray[np.int64] = columns["file_ids"]
        self.offsets: NDArray[np.int64] = columns["offsets"]
        self.lengths: NDArray[np.int64] = columns["lengths"]
        self.heights: NDArray[np.int32] = columns["heights"]
        self.widths: NDArray[np.int32] = columns["widths"]
        self.files: NDArray[np.bytes_] = columns["files"]
        self._identity = digest_json(header)
        self._images = image_reader(self.root, whole=self.layout in ("folder", "list"))

    @classmethod
    def open(cls, folder: Path) -> Self:
        """The index in `folder`, its columns checked against their checksums.

        Raises:
            DataError: it is missing, damaged, or of another format version.
        """
        header = read_header(folder)
        if not _columns_are_whole(folder, header):
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
        return not isinstance(self.root, FolderStorage)

    def file(self, sample: int) -> str:
        """Path or URL of the data file that holds the sample's image."""
        return self.root.at(self._span(sample).file)

    def read(self, sample: int) -> bytes:
        """The sample's encoded image.

        Raises:
            DataError: its file is gone or not as it was indexed.
        """
        try:
            return self._images.read(self._span(sample))
        except DataError as error:
            raise DataError(f"sample {self.key(sample)!r}: {error}") from error

    def read_all(self, samples: Sequence[int]) -> Iterator[bytes]:
        """As `read`, for each in order; from object storage they come together, and are kept until they are taken."""
        encoded = self._images.read_all([self._span(sample) for sample in samples])
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

    def _span(self, sample: int) -> Span:
        file = bytes(self.files[self.file_ids[sample]]).decode()
        return Span(file, int(self.offsets[sample]), int(self.lengths[sample]))


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
    if digest_json(header) != expected:
        raise DataError(f"index {folder} was replaced while it was in use; start again")
    return SampleIndex(folder, header)


def write_index(folder: Path, columns: Columns, header: Mapping[str, Any]) -> None:
    """Put an index into `folder`; an equal index that another process put there meanwhile is kept.

    Args:
        folder: where; whatever is there is replaced.
        columns: an array for each of `COLUMNS`.
        header: what else `index.json` is to hold.
    """
    complete: dict[str, Any] = {}

    def fill(scratch: Path) -> None:
        for name, kind in COLUMNS.items():
            dtype = columns[name].dtype if kind == "S" else np.dtype("<" + kind)
            np.save(scratch / f"{name}.npy", np.ascontiguousarray(columns[name], dtype=dtype))
        complete.update(format="cskd-pipeline-index", format_version=FORMAT_VERSION, **header)
        complete["checksums"] = {name: _checksum(scratch / f"{name}.npy") for name in COLUMNS}
        (scratch / HEADER_NAME).write_text(json.dumps(complete, indent=1) + "\n", encoding="utf-8")

    def equal(there: Path) -> bool:
        with contextlib.suppress(DataError):
            return read_header(there) == complete and _columns_are_whole(there, complete)
        return False

    put_folder(folder, fill, keep=equal)


def read_header(folder: Path) -> dict[str, Any]:
    """The contents of `index.json`.

    Raises:
        DataError: it is missing, damaged, or of a format version that this release does not read.
    """
    file = folder / HEADER_NAME
    try:
        header: Any = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(
            f"{folder} holds no index ({HEADER_NAME} is missing); build one: cskd-pipeline index"
        ) from error
    except (OSError, ValueError) as error:
        raise DataError(f"{file} is damaged ({error}); remove the folder and index again") from error
    if not isinstance(header, dict) or header.get("format") != "cskd-pipeline-index":
        raise DataError(f"{file} is no index of cskd-pipeline; name another folder")
    if header.get("format_version") != FORMAT_VERSION:
        raise DataError(
            f"{file} has format version {header.get('format_version')!r}, this release reads "
            f"{FORMAT_VERSION}; index again"
        )
    return header


def _columns_are_whole(folder: Path, header: Mapping[str, Any]) -> bool:
    """True where every column is there and has the checksum that the header holds."""
    try:
        return all(_checksum(folder / f"{name}.npy") == header["checksums"][name] for name in COLUMNS)
    except (OSError, KeyError, TypeError):
        return False


def _map_columns(folder: Path) -> Columns:
    """The columns, mapped read-only: no memory of their own, shared between processes.

    Raises:
        DataError: a column is missing or damaged.
    """
    try:
        return {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in COLUMNS}
    except (OSError, ValueError) as error:
        raise DataError(f"index {folder} is damaged ({error}); remove it and index again") from error


def _checksum(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
