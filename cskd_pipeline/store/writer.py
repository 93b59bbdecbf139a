"""Writing blocks: whole shards first, synced to stable storage, then their commit file."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cskd_pipeline.errors import DataError
from cskd_pipeline.labels import FieldSpec, Records
from cskd_pipeline.storage import Storage, open_storage
from cskd_pipeline.store import layout
from cskd_pipeline.store.commit import Commit, Fidelity, committed_blocks, file_facts
from cskd_pipeline.store.header import StoreHeader
from cskd_pipeline.store.metadata import array_text, chunk_rows, fill_value, group_text, spill_text
from cskd_pipeline.store.opening import make_root, require_store_or_room
from cskd_pipeline.store.shards import encode_chunk, encode_shard


class StoreWriter:
    """One of any number of writers of a store.

    A block exists for readers once `write_block` returns, and not before: a crash leaves files that the next write of
    that block replaces. Two writers of the same block write the same bytes; to save the work, claim the block first
    (`Claims`).
    """

    def __init__(self, location: Path | str | Storage, header: StoreHeader, *, out: str = "--out") -> None:
        """Create a store with these attributes, or open one that has them for more seeds.

        `out` is the option that names the place, for the errors.

        Raises:
            DataError: there is something else.
            MismatchError: the store there was made with other settings.
        """
        self.storage = open_storage(location) if isinstance(location, Path | str) else location
        self.encodings = header.decoded_encodings()
        self.fields = [layout.CROP_CRC, *(encoding.field for encoding in self.encodings.values())]
        require_store_or_room(self.storage, out=out)
        self.header = make_root(self.storage, header, out=out)
        self.storage.sweep()

    @property
    def path(self) -> str:
        """The store's absolute path or URL."""
        return self.storage.address

    def committed(self, seed: int) -> set[int]:
        """The blocks of a seed that are done."""
        return {*committed_blocks(self.storage, seed, blocks=self.header.blocks)}

    def is_committed(self, seed: int, block: int) -> bool:
        """Whether this block is done."""
        return self.storage.size(f"{layout.seed_name(seed)}/{layout.commit_name(block)}") is not None

    def uncommit(self, seed: int, block: int) -> None:
        """Delete the block's commit file, so that it no longer exists and is made again."""
        self.storage.delete(f"{layout.seed_name(seed)}/{layout.commit_name(block)}", durable=True)

    def write_block(
        self,
        seed: int,
        block: int,
        records: Mapping[str, Records],
        crop_crc: npt.NDArray[np.uint32],
        *,
        versions: dict[str, str],
        fidelity: Fidelity | None = None,
        replace: bool = False,
        confirm: Callable[[], object] = lambda: None,
    ) -> bool:
        """Write and commit all crops of a block; return whether it was written.

        Leftovers of an interrupted writer are replaced.

        Args:
            seed, block: which.
            records: of every encoding, all crops of the block in the order of samples.
            crop_crc: checksums of the crops.
            versions: of the libraries that made the records.
            fidelity: see `Commit`.
            replace: rewrite a block that is already committed; by default it is left as it is.
            confirm: called before each file is put in place; raise to stop writing.

        Raises:
            DataError: a record cannot be represented.
        """
        rows = self.header.rows(block)
        assert records.keys() == self.encodings.keys(), "a block has all encodings"
        assert {len(rows)} == {len(crop_crc), *map(len, records.values())}, "a block is written whole"
        if self.is_committed(seed, block):
            if not replace:
                return False
            self.uncommit(seed, block)
        chunks = self.ensure_seed(seed)
        facts = self._put(seed, block, self._contents(block, records, crop_crc, chunks), confirm)
        span = (rows.start, rows.stop)
        self._commit(Commit(self.header.digest(), seed, block, span, facts, versions, fidelity or {}), confirm)
        return True

    def copy_block(self, commit: Commit, files: Iterable[tuple[str, bytes]]) -> None:
        """Write and commit a block made elsewhere, replacing what is there.

        `files` are (name below the seed's group, content) of each of its files, written as they are yielded; if the
        iterable raises, the block stays uncommitted.
        """
        if self.is_committed(commit.seed, commit.block):
            self.uncommit(commit.seed, commit.block)
        facts = self._put(commit.seed, commit.block, files, lambda: None)
        assert facts == commit.files, "what is written is what is committed"
        self._commit(commit, lambda: None)

    def _put(
        self, seed: int, block: int, files: Iterable[tuple[str, bytes]], confirm: Callable[[], object]
    ) -> dict[str, dict[str, Any]]:
        """Write all files of a block except its commit file; return what to commit."""
        folder = layout.seed_name(seed)
        spills = {
            layout.spill_names(encoding.field, block): layout.spill_group(encoding.field)
            for encoding in self.encodings.values()
        }
        facts = {}
        for name, content in files:
            confirm()
            for names, group in spills.items():
                if name == names[0]:
                    self._ensure(f"{folder}/{group}/{layout.METADATA}", group_text({}))
            self.storage.write(f"{folder}/{name}", content)
            facts[name] = file_facts(content)
        for name in (name for names in spills if names[0] not in facts for name in names):
            self.storage.delete(f"{folder}/{name}")  # of an earlier write
        return facts

    def _commit(self, commit: Commit, confirm: Callable[[], object]) -> None:
        confirm()
        name = f"{layout.seed_name(commit.seed)}/{layout.commit_name(commit.block)}"
        self.storage.write(name, commit.text())

    def ensure_seed(self, seed: int, rows: Mapping[str, int] | None = None) -> dict[str, int]:
        """Write the seed's missing or damaged metadata, with these rows or the defaults; return its rows by field.

        Rows are those of a chunk.
        """
        folder = layout.seed_name(seed)
        self._ensure(f"{folder}/{layout.METADATA}", group_text(self.header.to_json()))
        chunks = {}
        for field in self.fields:
            name = f"{folder}/{field.name}/{layout.METADATA}"
            try:
                chunks[field.name] = chunk_rows(self._metadata(name) or b"", field, self.header)
            except ValueError:
                chunks[field.name] = (rows or {}).get(field.name) or layout.chunk_rows(field, self.header.block)
                self.storage.write(name, array_text(field, self.header, rows=chunks[field.name]))
        return chunks

    def _ensure(self, name: str, content: bytes) -> None:
        if self._metadata(name) != content:
            self.storage.write(name, content)

    def _metadata(self, name: str) -> bytes | None:
        with contextlib.suppress(FileNotFoundError, DataError):
            return self.storage.read(name, limit=layout.MAX_METADATA_BYTES)
        return None

    def _contents(
        self,
        block: int,
        records: Mapping[str, Records],
        crop_crc: npt.NDArray[np.uint32],
        chunks: dict[str, int],
    ) -> Iterator[tuple[str, bytes]]:
        """(Name below the seed's group, content) of every file of a block except its commit file."""
        yield self._shard(layout.CROP_CRC, block, crop_crc, chunks)
        for name, encoding in self.encodings.items():
            field = encoding.field
            stored = encoding.pack(records[name], page=chunks[field.name])
            yield self._shard(field, block, stored.rows, chunks)
            if len(stored.spill):
                if len(stored.spill) > layout.MAX_SPILL_BYTES:
                    raise DataError(
                        f"the labels of a block overflow by {len(stored.spill):,} bytes, at most "
                        f"{layout.MAX_SPILL_BYTES:,} are stored; make a store with a smaller --block, or give "
                        f"--target-arg {name}.row_bytes a larger value"
                    )
                metadata, chunk = layout.spill_names(field, block)
                yield metadata, spill_text(len(stored.spill))
                yield chunk, encode_chunk(stored.spill)

    def _shard(self, field: FieldSpec, block: int, rows: npt.NDArray[Any], chunks: dict[str, int]) -> tuple[str, bytes]:
        padded = np.full((self.header.block, *field.row_shape), fill_value(rows.dtype), rows.dtype)
        padded[: len(rows)] = rows
        return layout.shard_name(field, block), encode_shard(padded, chunk=chunks[field.name])
