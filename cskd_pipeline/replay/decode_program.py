"""Decoding seeds of a store into tables; as a program, into files that other processes map.

The program is run by its path and not as a module: its package needs torch, which this process has no use for.
It needs little memory, is nice to the training beside it, and ends when whoever started it does.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
from numpy.typing import NDArray

from cskd_pipeline.errors import CskdError, RetryError
from cskd_pipeline.labels import Encoding, FieldSpec
from cskd_pipeline.labels.base import Records
from cskd_pipeline.store import StoreHeader, StoreReader

CROP_CRC = FieldSpec("crop_crc", "<u4", ())
"""The checksums of crops are a table like any other."""

NICENESS = 10


class LabelReader(Protocol):
    """What decoding needs of a store."""

    @property
    def path(self) -> str:
        """Its absolute path or URL."""

    @property
    def header(self) -> StoreHeader:
        """What it says about itself."""

    @property
    def encodings(self) -> Mapping[str, Encoding]:
        """Its encodings by name."""

    @property
    def digest(self) -> str:
        """Equal for stores that say the same about themselves."""

    def read(self, seed: int, block: int, name: str, *, rows: slice | None = None) -> Records:
        """The records of a block, or of some of its crops."""

    def read_crop_crc(self, seed: int, block: int) -> NDArray[np.uint32]:
        """The checksums of a block's crops."""


@dataclasses.dataclass(frozen=True, slots=True)
class SeedTable:
    """Names a table: one entry for every sample, in canonical order.

    Attributes:
        seed: whose crops.
        name: of the encoding, or "crop_crc".
        ratio_steps: r * 65536 of the schedule; 0 where the table does not depend on it.
    """

    seed: int
    name: str
    ratio_steps: int = 0


def table_spec(reader: LabelReader, name: str) -> FieldSpec:
    """Type and shape of an entry."""
    return CROP_CRC if name == CROP_CRC.name else reader.encodings[name].table


def table_blocks(reader: LabelReader, table: SeedTable) -> Iterator[NDArray[Any]]:
    """The table, block after block.

    Raises:
        DataError: a block is missing or damaged.
    """
    spec = table_spec(reader, table.name)
    for block in range(reader.header.blocks):
        if table.name == CROP_CRC.name:
            entries: NDArray[Any] = reader.read_crop_crc(table.seed, block)
        else:
            records = reader.read(table.seed, block, table.name)
            entries = reader.encodings[table.name].tabulate(records, ratio_steps=table.ratio_steps)
        assert entries.shape == (len(reader.header.rows(block)), *spec.row_shape), "a table has an entry for each crop"
        yield np.ascontiguousarray(entries, np.dtype(spec.dtype))


def write_table(reader: LabelReader, table: SeedTable, path: Path) -> None:
    """The file at `path`, new, is the table in NumPy's format. Written, not mapped: a full disk is then an error.

    Raises:
        DataError: a block is missing or damaged.
        RetryError: the storage refuses.
    """
    spec = table_spec(reader, table.name)
    shape = (reader.header.samples, *spec.row_shape)
    blocks = table_blocks(reader, table)
    with _storage_errors(path), path.open("xb") as file:
        _write_header(file, np.dtype(spec.dtype), shape)
        for entries in blocks:
            file.write(entries.data)


def main() -> None:
    """Do the job that comes as a line of JSON on stdin, and say on stdout how it ended.

    The job is {"store": path, "tables": [{"table": fields of a SeedTable, "partial": path, "path": path,
    "lock": descriptor}]}. Each table is written to `partial` and renamed to `path`; then its lock, held exclusively
    until now on behalf of the process that started this one, is made a shared one: the table may be used.
    """
    for number in (signal.SIGINT, signal.SIGTERM):  # some schedulers send them to every process; the parent decides
        signal.signal(number, signal.SIG_IGN)
    os.nice(NICENESS)
    job = json.loads(sys.stdin.buffer.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    outcome: dict[str, str] = {}
    todo = job["tables"]
    try:
        reader: LabelReader = StoreReader(job["store"])
        while todo:
            partial = Path(todo[0]["partial"])
            write_table(reader, SeedTable(**todo[0]["table"]), partial)
            with _storage_errors(partial):
                partial.rename(todo[0]["path"])
            fcntl.flock(todo.pop(0)["lock"], fcntl.LOCK_SH)
    except CskdError as error:
        outcome = {"error": type(error).__name__, "message": str(error)}
        for entry in todo:  # others who wait find out for themselves, at once
            fcntl.flock(entry["lock"], fcntl.LOCK_UN)
    print(json.dumps(outcome), flush=True)


def _end_with_parent() -> None:
    # The bare file: a thread that waits in Python's would stand in the way of a normal end.
    while os.read(sys.stdin.fileno(), 1):
        pass
    os._exit(1)  # the other end of the pipe is closed


def _write_header(file: BinaryIO, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
    described = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, described)


@contextlib.contextmanager
def _storage_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RetryError(
            f"cannot write the table {path} of decoded labels ({error.strerror or error}); make room, give another "
            "folder with --scratch, or do without tables with --label-memory low"
        ) from error


if __name__ == "__main__":
    main()
