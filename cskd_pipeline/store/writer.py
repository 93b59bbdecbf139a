"""Writing blocks: whole shards first, their commit file last, everything on stable storage in between."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import zarr

from cskd_pipeline.encodings import FieldSpec, Records
from cskd_pipeline.errors import DataError, MismatchError, RetryError
from cskd_pipeline.records.durable import sync, writing
from cskd_pipeline.store import layout
from cskd_pipeline.store.arrays import ZSTD, Array, fill_value, open_field, write_metadata
from cskd_pipeline.store.commit import Commit, Fidelity, commit_path, file_facts
from cskd_pipeline.store.header import StoreHeader
from cskd_pipeline.store.opening import (
    LOCK,
    first_commit,
    is_store,
    read_header,
    require_store_or_room,
    write_header,
)


class StoreWriter:
    """The one writer of a store; a second process that opens it gets a `RetryError`.

    Use as a context manager. A block exists for readers from the moment `write_block` returns, and not at all
    before: a crash in between leaves files that the next write of that block removes.
    """

    def __init__(self, path: Path, header: StoreHeader) -> None:
        """Create the store at `path`, or open it for more seeds.

        Raises:
            DataError: something else lies at `path`.
            MismatchError: the store there was made with other settings.
            RetryError: the storage refuses, or another process is writing.
        """
        self.path, self.header = path, header
        self.encodings = header.decoded_encodings()
        with writing(path):
            require_store_or_room(path)
            path.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(path / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(self._lock)
                raise RetryError(f"another process is writing to {path}; wait for it, or stop it") from None
            try:
                if is_store(path):
                    remedy = "use the same settings, or another --out for a new store"
                    read_header(path).require_same(header, where=str(path), remedy=remedy)
                else:
                    self._require_ours(first_commit(path))
                    write_header(path, header)
                self._root = zarr.open_group(path, mode="a", zarr_format=3)
            except BaseException:
                self.close()
                raise

    def _require_ours(self, commit: Path | None) -> None:
        """Nothing, if there is no commit, or one of a store with this header."""
        if commit is not None and Commit.read(commit).store != self.header.digest():
            raise MismatchError(
                f"{self.path} holds labels made with other settings, and its zarr.json, which says which, is missing "
                "or damaged; give the settings that it was made with to write it again, or another --out"
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let another process write."""
        os.close(self._lock)

    def is_committed(self, seed: int, block: int) -> bool:
        """Whether this block is done."""
        return commit_path(self.path / layout.seed_name(seed), block).exists()

    def write_block(
        self,
        seed: int,
        block: int,
        records: Mapping[str, Records],
        crop_crc: npt.NDArray[np.uint32],
        *,
        versions: dict[str, str],
        fidelity: Fidelity | None = None,
    ) -> None:
        """Write and commit all crops of a block, replacing whatever lay there.

        Args:
            seed: the block's seed.
            block: its number.
            records: of every encoding, all crops of the block in the order of samples.
            crop_crc: their checksums.
            versions: of the libraries that made them.
            fidelity: see `Commit`.

        Raises:
            DataError: a record cannot be represented.
            RetryError: the storage refuses; the block is then not committed.
        """
        rows = self.header.rows(block)
        assert records.keys() == self.encodings.keys(), "a block has all encodings"
        assert {len(rows)} == {len(crop_crc), *map(len, records.values())}, "a block is written whole"
        folder = self.path / layout.seed_name(seed)
        with writing(folder):
            commit_path(folder, block).unlink(missing_ok=True)
            arrays = self._ensure_seed(seed)
            files = [*self._write_field(seed, layout.CROP_CRC, block, crop_crc, arrays)]
            for name, encoding in self.encodings.items():
                page = int(arrays[encoding.field.name].chunks[0])
                stored = encoding.pack(records[name], page=page)
                files += self._write_field(seed, encoding.field, block, stored.rows, arrays)
                files += self._write_spill(seed, encoding.field, block, stored.spill)
            facts = {}
            for file in files:
                _sync_up_to(file, folder)
                facts[file.relative_to(folder).as_posix()] = file_facts(file)
            span = (rows.start, rows.stop)
            commit = Commit(self.header.digest(), seed, block, span, facts, versions, fidelity or {})
            commit.write(commit_path(folder, block))

    def _ensure_seed(self, seed: int) -> dict[str, Array]:
        """The seed's arrays by field, opened; what of their metadata is missing or damaged is written first."""
        name = layout.seed_name(seed)
        folder = self.path / name
        if not (folder / "zarr.json").exists():
            self._root.require_group(name)
        arrays = {}
        for field in (layout.CROP_CRC, *(encoding.field for encoding in self.encodings.values())):
            try:
                arrays[field.name] = open_field(folder, field, self.header, mode="r+")
            except DataError:
                write_metadata(folder, field, self.header)
                arrays[field.name] = open_field(folder, field, self.header, mode="r+")
        (folder / "commits").mkdir(exist_ok=True)
        sync(folder)
        sync(self.path)
        return arrays

    def _write_field(
        self, seed: int, field: FieldSpec, block: int, rows: npt.NDArray[Any], arrays: dict[str, Array]
    ) -> Iterator[Path]:
        folder = self.path / layout.seed_name(seed)
        shard = layout.shard_file(folder, field, block)
        shard.unlink(missing_ok=True)  # zarr would try to merge with a torn shard
        padded = np.full((self.header.block, *field.row_shape), fill_value(rows.dtype), rows.dtype)
        padded[: len(rows)] = rows
        array = arrays[field.name].with_config({"write_empty_chunks": True})
        array[block * self.header.block : (block + 1) * self.header.block] = padded
        yield shard

    def _write_spill(self, seed: int, field: FieldSpec, block: int, spill: npt.NDArray[np.uint8]) -> Iterator[Path]:
        folder = layout.spill_folder(self.path / layout.seed_name(seed), field, block)
        if folder.exists():
            shutil.rmtree(folder)
        if len(spill) == 0:
            return
        group = self._root.require_group(f"{layout.seed_name(seed)}/{layout.spill_name(field)}")
        array = group.create_array(
            layout.spill_array(block),
            shape=spill.shape,
            chunks=spill.shape,
            dtype=np.uint8,
            compressors=[ZSTD],
            fill_value=255,
            config={"write_empty_chunks": True},
        )
        array[:] = spill
        yield from layout.spill_files(self.path / layout.seed_name(seed), field, block)


def _sync_up_to(file: Path, top: Path) -> None:
    """Make a file and the names on the way to it durable."""
    sync(file)
    for folder in file.parents:
        sync(folder)
        if folder == top:
            return
