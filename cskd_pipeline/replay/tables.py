"""The tables of decoded labels that a run gathers from, wherever they are kept."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from cskd_pipeline.replay.decode_program import LabelReader, SeedTable, table_blocks, table_spec
from cskd_pipeline.replay.label_ranges import LabelRanges
from cskd_pipeline.replay.scratch import own_folder
from cskd_pipeline.replay.shared_tables import SharedTables
from cskd_pipeline.storage import CachedStorage, ObjectStorage
from cskd_pipeline.storage.durable import writing
from cskd_pipeline.store import StoreReader
from cskd_pipeline.store.layout import seed_name

LabelMemory = Literal["tables", "low"]

SMALL_BYTES = 8 << 20
"""Seeds up to this size are decoded in the process that uses them: sharing would cost more than it saves."""


class Tables(Protocol):
    """Entries of a store's seeds, by sample."""

    def prepare(self, wanted: list[SeedTable], upcoming: list[SeedTable]) -> None:
        """Have `wanted` at hand and nothing else, `upcoming` perhaps on the way.

        Raises:
            DataError: a block is missing or damaged.
            RetryError: memory or storage is wanting.
        """

    def entries(self, table: SeedTable, samples_n: NDArray[np.int64]) -> NDArray[Any]:
        """A copy of these samples' entries [n, *row_shape] of a wanted table."""

    def close(self) -> None:
        """Release everything."""


class PrivateTables:
    """Tables in this process's memory, decoded when they are asked for."""

    def __init__(self, reader: LabelReader) -> None:
        """Tables of this store."""
        self._reader = reader
        self._tables: dict[SeedTable, NDArray[Any]] = {}

    def prepare(self, wanted: list[SeedTable], upcoming: list[SeedTable]) -> None:
        """Decode those of `wanted` that are not at hand."""
        self._tables = {table: self._tables[table] for table in wanted if table in self._tables}
        for table in wanted:
            if table not in self._tables:
                self._tables[table] = np.concatenate(list(table_blocks(self._reader, table)))

    def entries(self, table: SeedTable, samples_n: NDArray[np.int64]) -> NDArray[Any]:
        """A copy of these entries."""
        return np.take(self._tables[table], samples_n, axis=0)

    def close(self) -> None:
        """Forget all."""
        self._tables = {}


def label_tables(reader: LabelReader, names: list[str], *, memory: LabelMemory, scratch: Path | None) -> Tables:
    """The way to keep these tables: as the user asks for, by their size otherwise."""
    if memory == "low":
        return _ranges(reader, scratch)
    seed_bytes = reader.header.samples * sum(table_spec(reader, name).row_bytes for name in names)
    if seed_bytes <= SMALL_BYTES:
        return PrivateTables(reader)
    return SharedTables(reader, scratch=scratch)


def _ranges(reader: LabelReader, scratch: Path | None) -> Tables:
    """Ranges of a store; of one in a bucket, the shards of the seeds in use are fetched once to a local folder."""
    if not isinstance(reader, StoreReader) or not isinstance(reader.storage, ObjectStorage):
        return LabelRanges(reader)
    with writing(scratch or Path(tempfile.gettempdir())):
        files = CachedStorage(reader.storage, own_folder(scratch or Path(tempfile.gettempdir())))

    def keep(seeds: set[int]) -> None:
        files.forget(but={seed_name(seed) for seed in seeds})

    return LabelRanges(StoreReader(files), keep=keep)
