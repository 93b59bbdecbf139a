"""Decoding seeds of a store into tables, in this process or in one of its own.

The other process is a fresh interpreter that runs this file by its path: as a module it would import its package, and
torch with it. It is no thread because one would hold up the training beside it, and because loader workers are forked
from the process that trains: obstore's threads do not survive a fork (docs/decisions/0007-seed-tables.md).
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cskd_pipeline import errors
from cskd_pipeline.errors import CskdError, RetryError
from cskd_pipeline.labels import FieldSpec
from cskd_pipeline.runtime.allocator import keep_freed_memory
from cskd_pipeline.store import StoreReader

CROP_CRC = FieldSpec("crop_crc", "<u4", ())
"""The checksums of crops are a table like any other."""

PROGRAM = Path(__file__)
NICENESS = 10


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


def table_spec(reader: StoreReader, name: str) -> FieldSpec:
    """Type and shape of an entry."""
    return CROP_CRC if name == CROP_CRC.name else reader.encodings[name].table


def table_blocks(reader: StoreReader, table: SeedTable) -> Iterator[NDArray[Any]]:
    """The table's entries [n, *row_shape], block after block.

    Raises:
        DataError: a block is missing or damaged.
        RetryError: the store's storage refuses.
    """
    dtype = np.dtype(table_spec(reader, table.name).dtype)
    for block in range(reader.header.blocks):
        if table.name == CROP_CRC.name:
            entries: NDArray[Any] = reader.read_crop_crc(table.seed, block)
        else:
            records = reader.read(table.seed, block, table.name)
            entries = reader.encodings[table.name].tabulate(records, ratio_steps=table.ratio_steps)
        yield np.ascontiguousarray(entries, dtype)


class Decoder:
    """A process at work on tables, in files without a name: nothing is left of them when nobody has them open.

    Attributes:
        paths: where processes that see this one can open the files, each of its full size from the start. Their
            contents are the tables once `wait` has returned.
    """

    def __init__(self, reader: StoreReader, tables: Sequence[SeedTable], folder: Path) -> None:
        """Start on these tables, on the file system of `folder`.

        Raises:
            RetryError: no file can be made there.
        """
        self._seeds = ", ".join(str(seed) for seed in sorted({table.seed for table in tables}))
        with contextlib.ExitStack() as files:
            descriptors = []
            with _storage_errors(folder):
                for table in tables:
                    file = files.enter_context(tempfile.TemporaryFile(dir=folder, buffering=0))
                    file.truncate(reader.header.samples * table_spec(reader, table.name).row_bytes)
                    descriptors.append(file.fileno())
            job = {
                "store": reader.path,
                "folder": str(folder),
                "parent": os.getpid(),
                "tables": [dataclasses.asdict(table) for table in tables],
                "descriptors": descriptors,
            }
            # -P: the program's own folder is no place to import from.
            self._process = subprocess.Popen(
                [sys.executable, "-P", str(PROGRAM), json.dumps(job)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                pass_fds=descriptors,
                process_group=0,  # Ctrl-C and a scheduler's signals to the group are this process's to decide on
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            )
            self._files = files.pop_all()
        self.paths = [f"/proc/{os.getpid()}/fd/{descriptor}" for descriptor in descriptors]

    def release(self) -> None:
        """Close this process's descriptors of the files: all who need them have opened them."""
        self._files.close()

    def wait(self) -> None:
        """Return when all tables are written.

        Raises:
            CskdError: what went wrong there, as the error it was.
            RetryError: it was killed.
        """
        said, _ = self._process.communicate()
        code = self._process.returncode
        if code < 0:
            likely = ", most likely for want of memory" if -code == signal.SIGKILL else ""
            raise RetryError(
                f"the process that decodes the labels of seed {self._seeds} was killed by signal {-code}{likely}; "
                "make memory available, or give a folder on a disk with --scratch, and try again"
            )
        if code:
            raise RuntimeError(
                f"the process that decodes the labels of seed {self._seeds} failed; its traceback is above"
            )
        outcome = json.loads(said)
        if outcome:
            kind: type[CskdError] = getattr(errors, outcome["error"])
            raise kind(outcome["message"])

    def stop(self) -> None:
        """End it, if it is still at work, and close the files."""
        self._files.close()
        if self._process.returncode is None:
            self._process.kill()
            self._process.communicate()


def main() -> None:
    """Do the job that `Decoder` gives as an argument; say on stdout, in JSON, what went wrong.

    It is nice to the training beside it, and ends when the process that started it has ended.
    """
    for number in (signal.SIGINT, signal.SIGTERM):  # some schedulers send them to every process; the parent decides
        signal.signal(number, signal.SIG_IGN)
    os.nice(NICENESS)
    keep_freed_memory()
    job = json.loads(sys.argv[1])
    outcome: dict[str, str] = {}
    try:
        reader = StoreReader(job["store"])
        for table, descriptor in zip(job["tables"], job["descriptors"], strict=True):
            blocks = table_blocks(reader, SeedTable(**table))
            with _storage_errors(Path(job["folder"])), os.fdopen(descriptor, "wb") as file:
                for entries in blocks:
                    file.write(entries.data)
                    if os.getppid() != job["parent"]:
                        return
    except CskdError as error:
        outcome = {"error": type(error).__name__, "message": str(error)}
    print(json.dumps(outcome))


@contextlib.contextmanager
def _storage_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RetryError(
            f"cannot write decoded labels to {folder} ({error.strerror or error}); make room, or give another folder "
            "with --scratch"
        ) from error


if __name__ == "__main__":
    main()
