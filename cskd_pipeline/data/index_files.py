"""An index on disk: a folder of one `.npy` a column and `index.json`, put in place in one step, never changed.

`index.json` is the header: `format_version`, what the data set was, and size and checksum of every column.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cskd_pipeline.data.cache import move_away, scratch_beside, storage_errors, take_place
from cskd_pipeline.errors import DataError
from cskd_pipeline.record import digest_json

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


def write_index(folder: Path, columns: Columns, header: Mapping[str, Any]) -> None:
    """Puts an index into `folder`; an equal index that another process has put there meanwhile is kept.

    Args:
        folder: where; whatever is there is replaced.
        columns: an array for each of `COLUMNS`.
        header: what else `index.json` is to hold.

    Raises:
        RetryError: the disk is full or cannot be written.
    """
    with storage_errors(folder.parent), scratch_beside(folder) as scratch:
        for name, kind in COLUMNS.items():
            dtype = columns[name].dtype if kind == "S" else np.dtype("<" + kind)
            np.save(scratch / f"{name}.npy", np.ascontiguousarray(columns[name], dtype=dtype))
        complete = {
            "format": "cskd-pipeline-index",
            "format_version": FORMAT_VERSION,
            **header,
            "checksums": {name: _checksum(scratch / f"{name}.npy") for name in COLUMNS},
        }
        (scratch / HEADER_NAME).write_text(json.dumps(complete, indent=1) + "\n", encoding="utf-8")
        while not take_place(scratch, folder):
            try:
                if read_header(folder) == complete and check_columns(folder, complete):
                    return
            except DataError:
                pass
            move_away(folder)


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


def check_columns(folder: Path, header: Mapping[str, Any]) -> bool:
    """True where every column is there and has the checksum that the header holds."""
    try:
        return all(_checksum(folder / f"{name}.npy") == header["checksums"][name] for name in COLUMNS)
    except (OSError, KeyError, TypeError):
        return False


def map_columns(folder: Path) -> Columns:
    """The columns, mapped read-only: no memory of their own, shared between processes.

    Raises:
        DataError: a column is missing or damaged.
    """
    try:
        return {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in COLUMNS}
    except (OSError, ValueError) as error:
        raise DataError(f"index {folder} is damaged ({error}); remove it and index again") from error


def identity(header: Mapping[str, Any]) -> str:
    """Equal for indices with equal contents, different otherwise."""
    return digest_json(header)


def _checksum(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
