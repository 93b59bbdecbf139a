"""Labels without tables: every batch reads the chunks its crops lie in.

For where neither memory nor a disk holds an epoch's tables. A random batch finds hardly any chunk it has read before,
so nearly every crop costs a chunk of up to 1,024: for 512 crops of 1.28 million 1.6 s (`hard`) or 2.6 s (`soft`) of
processor time, where tables take 0.02 and 0.14 ms.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cskd_pipeline.replay.decode_program import CROP_CRC, LabelReader, SeedTable, table_spec
from cskd_pipeline.store.layout import chunk_rows

CACHE_BYTES = 64 << 20


class LabelRanges:
    """Entries read as they are asked for; the last ones read are kept, up to `CACHE_BYTES`."""

    def __init__(
        self,
        reader: LabelReader,
        *,
        cache_bytes: int = CACHE_BYTES,
        keep: Callable[[set[int]], object] = lambda seeds: None,
    ) -> None:
        """Entries of this store; `keep` is told which seeds are in use from now on."""
        self._reader, self._cache_bytes, self._keep = reader, cache_bytes, keep
        self._cache: OrderedDict[tuple[SeedTable, int, int], NDArray[Any]] = OrderedDict()
        self._size = 0

    @property
    def size_bytes(self) -> int:
        """What is kept."""
        return self._size

    def prepare(self, wanted: list[SeedTable], upcoming: list[SeedTable]) -> None:
        """Forget what is not wanted."""
        self._keep({table.seed for table in wanted})
        for key in [key for key in self._cache if key[0] not in wanted]:
            self._size -= self._cache.pop(key).nbytes

    def entries(self, table: SeedTable, samples_n: NDArray[np.int64]) -> NDArray[Any]:
        """A copy of these entries.

        Raises:
            DataError: a chunk is missing or damaged.
        """
        spec = table_spec(self._reader, table.name)
        found: NDArray[Any] = np.empty((len(samples_n), *spec.row_shape), np.dtype(spec.dtype))
        size = self._range_rows(table.name)  # what the store keeps as a chunk
        block_n, place_n = np.divmod(samples_n, self._reader.header.block)
        number_n = place_n // size
        order = np.lexsort((number_n, block_n))
        cuts = np.flatnonzero(np.diff(block_n[order]) | np.diff(number_n[order])) + 1
        for rows in np.split(order, cuts) if len(order) else ():
            block, number = int(block_n[rows[0]]), int(number_n[rows[0]])
            found[rows] = self._range(table, block, number, size)[place_n[rows] - number * size]
        return found

    def close(self) -> None:
        """Forget all."""
        self._keep(set())
        self._cache.clear()
        self._size = 0

    def _range_rows(self, name: str) -> int:
        if name == CROP_CRC.name:  # small enough to be read by the block
            return self._reader.header.block
        return chunk_rows(self._reader.encodings[name].field, self._reader.header.block)

    def _range(self, table: SeedTable, block: int, number: int, size: int) -> NDArray[Any]:
        key = (table, block, number)
        if key not in self._cache:
            self._cache[key] = self._read(table, block, number, size)
            self._size += self._cache[key].nbytes
        self._cache.move_to_end(key)
        kept = self._cache[key]
        while self._size > self._cache_bytes and len(self._cache) > 1:
            self._size -= self._cache.popitem(last=False)[1].nbytes
        return kept

    def _read(self, table: SeedTable, block: int, number: int, size: int) -> NDArray[Any]:
        if table.name == CROP_CRC.name:
            return self._reader.read_crop_crc(table.seed, block)
        rows = slice(number * size, min((number + 1) * size, len(self._reader.header.rows(block))))
        records = self._reader.read(table.seed, block, table.name, rows=rows)
        return self._reader.encodings[table.name].tabulate(records, ratio_steps=table.ratio_steps)
