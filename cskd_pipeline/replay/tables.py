"""Tables of the seeds in use: decoded once on a node, ahead of their use, and shared by the ranks of the run there.

The first rank of a node has a process decode into files without a name, all ranks of the node map these, and the
kernel frees a file when the last of them lets go, whatever ended them. Nothing is shared between runs.
"""

from __future__ import annotations

import mmap
import os
import weakref
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cskd_pipeline.errors import UsageError
from cskd_pipeline.replay.decoding import Decoder, SeedTable, table_blocks, table_spec
from cskd_pipeline.replay.scratch import scratch_folder
from cskd_pipeline.runtime.process_name import place
from cskd_pipeline.runtime.ranks import gather_from_ranks, on_all_ranks, rank
from cskd_pipeline.store import StoreReader

SMALL_BYTES = 8 << 20
"""Seeds up to this size are decoded in the process that uses them: starting another one would take longer."""


class SeedTables:
    """Entries of a store's seeds, by sample."""

    def __init__(self, reader: StoreReader, names: list[str], *, scratch: Path | None = None) -> None:
        """Tables of this store.

        Args:
            reader: of the store.
            names: of the tables that are asked for of every seed.
            scratch: folder for tables that ranks share; None to find one with room.
        """
        self._reader, self._scratch = reader, scratch
        seed_bytes = reader.header.samples * sum(table_spec(reader, name).row_bytes for name in names)
        # Without /proc nobody can open another's files.
        self._shared = seed_bytes > SMALL_BYTES and Path("/proc/self/fd").is_dir()
        self._folder: Path | None = None
        self._leader: int | None = None
        self._decoder: Decoder | None = None  # of the first rank of a node
        self._coming: list[SeedTable] = []  # being decoded
        self._tables: dict[SeedTable, NDArray[Any]] = {}
        alive = weakref.ref(self)

        def forget() -> None:
            if (tables := alive()) is not None:
                tables._tables = {}

        # Workers forked from here would keep what is mapped at that moment for as long as they live.
        os.register_at_fork(after_in_child=forget)

    def prepare(self, wanted: list[SeedTable], upcoming: list[SeedTable]) -> None:
        """Have all of `wanted`, and have `upcoming` decoded meanwhile; all others are dropped.

        All ranks call it at the same time, with the same tables.

        Raises:
            DataError: a block is missing or damaged.
            RetryError: no folder has room, or the decoding process was killed.
        """
        in_use = {*wanted, *upcoming}
        try:
            if not {*self._coming} <= {*wanted}:
                self._abandon()
            self._tables = {table: entries for table, entries in self._tables.items() if table in in_use}
            self._finish()
            self._begin(wanted, in_use=in_use)
            self._finish()
            if self._shared:
                self._begin(upcoming, in_use=in_use)
        except BaseException:
            self._abandon()
            raise

    def entries(self, table: SeedTable, samples_n: NDArray[np.int64]) -> NDArray[Any]:
        """A copy of these samples' entries [n, *row_shape].

        Raises:
            UsageError: the table is not one that was prepared.
        """
        if table not in self._tables or table in self._coming:
            raise UsageError(f"seed {table.seed} is not prepared; call prepare with the seeds of the epoch first")
        # Three times as fast as table[samples_n].
        return np.take(self._tables[table], samples_n, axis=0)

    def close(self) -> None:
        """End decoding, and drop all tables."""
        self._abandon()
        self._tables = {}

    def _begin(self, tables: list[SeedTable], *, in_use: set[SeedTable]) -> None:
        """Decode those of `tables` that are not here, or begin to, into files that are mapped at once."""
        missing = [table for table in dict.fromkeys(tables) if table not in self._tables]
        if not missing:
            return
        self._coming = missing
        if not self._shared:
            on_all_ranks(lambda: self._decode(missing))
            return
        leader = self._find_leader()
        paths = on_all_ranks(lambda: self._start(missing, in_use) if leader == rank() else [])[leader]
        on_all_ranks(lambda: self._map(missing, paths))
        if self._decoder is not None:
            self._decoder.release()

    def _finish(self) -> None:
        """Wait for what is being decoded."""
        if self._coming:
            on_all_ranks(lambda: self._decoder.wait() if self._decoder is not None else None)
            self._decoder, self._coming = None, []

    def _abandon(self) -> None:
        """End decoding, and drop what was not ready."""
        if self._decoder is not None:
            self._decoder.stop()
        for table in self._coming:
            self._tables.pop(table, None)
        self._decoder, self._coming = None, []

    def _find_leader(self) -> int:
        """The first rank of those that can open this one's files: on the same machine, in the same namespaces."""
        if self._leader is None:
            places = gather_from_ranks((place(), str(Path("/proc/self/ns/user").readlink())))
            self._leader = places.index(places[rank()])
        return self._leader

    def _start(self, tables: list[SeedTable], in_use: set[SeedTable]) -> list[str]:
        if self._folder is None:
            row_bytes = sum(table_spec(self._reader, table.name).row_bytes for table in in_use)
            self._folder = scratch_folder(self._scratch, needed=self._reader.header.samples * row_bytes)
        self._decoder = Decoder(self._reader, tables, self._folder)
        return self._decoder.paths

    def _map(self, tables: list[SeedTable], paths: list[str]) -> None:
        for table, path in zip(tables, paths, strict=True):
            spec = table_spec(self._reader, table.name)
            with Path(path).open("rb") as file:
                mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            self._tables[table] = np.frombuffer(mapped, spec.dtype).reshape(-1, *spec.row_shape)

    def _decode(self, tables: list[SeedTable]) -> None:
        for table in tables:
            self._tables[table] = np.concatenate(list(table_blocks(self._reader, table)))
