"""Tables that all processes of a node share: decoded once, by a process of its own, ahead of their use."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cskd_pipeline.record import digest_json
from cskd_pipeline.replay.decode_program import LabelReader, SeedTable, table_spec
from cskd_pipeline.replay.decoder import Decoder
from cskd_pipeline.replay.scratch import own_folder, scratch_folder
from cskd_pipeline.replay.table_file import TableFile, sweep
from cskd_pipeline.storage.durable import writing

_POLL_S = 0.02


@dataclasses.dataclass(slots=True)
class _Held:
    """A table that this process has locked: its decoder is at work, or it is ready to map, or mapped."""

    file: TableFile
    decoder: Decoder | None = None
    array: NDArray[Any] | None = None


class SharedTables:
    """Files in a scratch folder that every process maps and the first to need a table has decoded.

    While an epoch trains, the tables of the next are decoded; those of the last are deleted when their last user lets
    go. So a node holds two epochs' tables, however many seeds and ranks there are; runs share them where they train
    on the same seed (for `hard`, at the same ratio) at the same time.
    """

    def __init__(self, reader: LabelReader, *, scratch: Path | None = None) -> None:
        """Tables of this store, below `scratch` or where there is room."""
        self._reader, self._scratch = reader, scratch
        self._folder: Path | None = None
        self._held: dict[SeedTable, _Held] = {}

    def prepare(self, wanted: list[SeedTable], upcoming: list[SeedTable]) -> None:
        """Map `wanted`, decoded here or by another process; let go of all others; start on `upcoming`.

        Raises:
            DataError: a block is missing or damaged.
            RetryError: no folder has room, or the decoding process was killed.
        """
        if self._folder is None:
            self._folder = self._find_folder({*wanted, *upcoming})
        with writing(self._folder):
            own_folder(self._folder.parent)  # systems tidy up temporary files, and logins that end
            for table in set(self._held) - {*wanted, *upcoming}:
                self._let_go(table)
            sweep(self._folder)
            while not all(self._ready(table) for table in wanted):
                self._begin(wanted)
                if not self._wait():
                    time.sleep(_POLL_S)  # another process is decoding
            self._begin(upcoming)

    def entries(self, table: SeedTable, samples_n: NDArray[np.int64]) -> NDArray[Any]:
        """A copy of these entries."""
        array = self._held[table].array
        assert array is not None, "prepare comes before entries"
        # Three times as fast as array[samples_n].
        return np.take(array, samples_n, axis=0)

    def close(self) -> None:
        """End decoding, let go of all tables, and delete those that nobody else uses."""
        for table in list(self._held):
            self._let_go(table)
        if self._folder is not None:
            sweep(self._folder)

    def _find_folder(self, tables: set[SeedTable]) -> Path:
        row_bytes = sum(table_spec(self._reader, table.name).row_bytes for table in tables)

        def present(folder: Path) -> int:
            files = [TableFile(folder, self._name(table)) for table in tables]
            return sum(_size(path) for file in files for path in (file.path, file.partial))

        return scratch_folder(self._scratch, needed=self._reader.header.samples * row_bytes, present=present)

    def _name(self, table: SeedTable) -> str:
        """File name: the digest tells stores and settings apart."""
        known = table.name in self._reader.encodings
        encoding = self._reader.encodings[table.name].to_json() if known else table.name
        digest = digest_json([self._reader.digest, encoding])
        return f"{digest}-{table.seed:06d}-{table.name}-{table.ratio_steps:05d}"

    def _ready(self, table: SeedTable) -> bool:
        """Whether the table is mapped; maps it if it can be."""
        held = self._held.get(table)
        if held is None or held.decoder is not None:
            return False
        if held.array is None:
            held.array = held.file.open()
            if held.array is None:  # another process found it free for a moment, and deleted it
                self._let_go(table)
        return table in self._held

    def _begin(self, tables: list[SeedTable]) -> None:
        """Share the tables that others have; start a process that decodes those that nobody has."""
        assert self._folder is not None
        mine: dict[SeedTable, TableFile] = {}
        for table in tables:
            if table in self._held:
                continue
            file = TableFile(self._folder, self._name(table))
            if file.lock(shared=False):
                file.clear()
                mine[table] = file
            elif file.lock(shared=True):
                if file.path.exists():
                    self._held[table] = _Held(file)
                else:  # the lock was taken in passing: nobody is decoding
                    file.release()
        if mine:
            # Held first, so that they are let go of whatever happens.
            self._held |= {table: _Held(file) for table, file in mine.items()}
            decoder = Decoder(self._reader.path, mine)
            for table in mine:
                self._held[table].decoder = decoder

    def _wait(self) -> bool:
        """Wait a little for a process of ours; False where none is at work."""
        for decoder in {held.decoder for held in self._held.values() if held.decoder is not None}:
            try:
                done = decoder.wait(_POLL_S)
            except BaseException:
                self._let_go(self._of(decoder)[0])
                raise
            if done:
                for table in self._of(decoder):
                    self._held[table].decoder = None
            return True
        return False

    def _of(self, decoder: Decoder) -> list[SeedTable]:
        return [table for table, held in self._held.items() if held.decoder is decoder]

    def _let_go(self, table: SeedTable) -> None:
        """Release a table, and with it those that the same process is still decoding."""
        held = self._held.pop(table, None)
        if held is None:
            return
        if held.decoder is not None:
            held.decoder.stop()
            for other in self._of(held.decoder):
                self._let_go(other)
        held.array = None
        held.file.release()


def _size(path: Path) -> int:
    with contextlib.suppress(FileNotFoundError):
        return path.stat().st_size
    return 0
