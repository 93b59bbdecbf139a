"""Reading committed blocks, and nothing else."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from cskd_pipeline.errors import DataError, UsageError
from cskd_pipeline.labels import FieldSpec, Records, StoredRows
from cskd_pipeline.seeds import format_seeds
from cskd_pipeline.storage import FolderStorage, Storage, open_storage
from cskd_pipeline.store import layout
from cskd_pipeline.store.commit import Commit, committed_blocks, file_facts
from cskd_pipeline.store.metadata import chunk_rows, spill_length
from cskd_pipeline.store.opening import read_header
from cskd_pipeline.store.shards import decode_into, decode_rows

_SHOWN = 8
Item = TypeVar("Item")
Result = TypeVar("Result")

_REQUESTS = 16
"""Small files requested at a time where each takes a network round trip."""


class StoreReader:
    """A store opened for reading. Opening reads one small file; only array metadata is cached."""

    def __init__(self, location: Path | str | Storage) -> None:
        """Open the store at a path or URL.

        Raises:
            DataError: there is no store.
            MismatchError: its format is newer than this release.
        """
        self.storage = open_storage(location) if isinstance(location, Path | str) else location
        self.header = read_header(self.storage)
        self.digest = self.header.digest()
        try:
            self.encodings = self.header.decoded_encodings()
        except UsageError as error:
            raise DataError(f"the attributes of {self.path} are damaged ({error})") from error
        self._chunk_rows: dict[str, int] = {}

    @property
    def path(self) -> str:
        """Its absolute path or URL."""
        return self.storage.address

    @property
    def fields(self) -> list[FieldSpec]:
        """The arrays of a seed."""
        return [layout.CROP_CRC, *(encoding.field for encoding in self.encodings.values())]

    def begun(self) -> dict[int, list[int]]:
        """Every seed that has a folder -> its committed blocks, both ascending."""
        seeds = [seed for seed in map(layout.seed_of, self.storage.folders()) if seed is not None]
        return dict(zip(seeds, self.each(self.committed, seeds), strict=True))

    def seeds(self) -> list[int]:
        """Every seed with a committed block, ascending."""
        return [seed for seed, blocks in self.begun().items() if blocks]

    def committed(self, seed: int) -> list[int]:
        """The committed blocks of a seed, ascending."""
        return committed_blocks(self.storage, seed, blocks=self.header.blocks)

    def complete_seeds(self) -> list[int]:
        """The seeds that a student may train on."""
        return [seed for seed, blocks in self.begun().items() if len(blocks) == self.header.blocks]

    def require_complete(self, seeds: list[int]) -> None:
        """Raise DataError unless all blocks of these seeds are committed and every file has its committed size.

        The error says how far an incomplete seed is, or names the file that is missing or truncated.
        """
        for seed in seeds:
            self.require_files(seed, self.complete_commits(seed))

    def complete_commits(self, seed: int, *, use: str = "train on the complete seeds") -> list[Commit]:
        """The commits of a complete seed.

        Raises:
            DataError: it is incomplete, and which others to `use`; or as `commit`.
        """
        done = self.committed(seed)
        if len(done) == self.header.blocks:
            return self.each(functools.partial(self.commit, seed), done)
        seeds = self.complete_seeds()
        others = format_seeds(seeds) if len(seeds) > _SHOWN else ", ".join(map(str, seeds))
        rest = f"{use} {others}" if seeds else "choose another store: no seed is complete"
        raise DataError(
            f"seed {seed} of {self.path} is incomplete: {len(done)} of {self.header.blocks} blocks; "
            f"run precompute with --seeds {seed} to finish it, or {rest}"
        )

    def require_files(self, seed: int, commits: Iterable[Commit]) -> None:
        """Raise DataError, naming the file, unless all files of these blocks are there at their committed size."""
        folder = layout.seed_name(seed)
        sizes = {file.name[len(folder) + 1 :]: file.size for file in self.storage.files(folder)}
        for commit in commits:
            for name in commit.files:
                self._require_size(name, commit, sizes.get(name))

    def commit(self, seed: int, block: int) -> Commit:
        """The commit of a block.

        Raises:
            DataError: the block is not committed, or its commit file is damaged or belongs to another store or block.
        """
        name = f"{layout.seed_name(seed)}/{layout.commit_name(block)}"
        where = self.storage.at(name)
        try:
            commit = Commit.parse(self.storage.read(name, limit=layout.MAX_COMMIT_BYTES))
        except FileNotFoundError:
            raise DataError(
                f"block {block} of seed {seed} in {self.path} is not committed; run precompute to make it"
            ) from None
        except (DataError, ValueError, UsageError) as error:
            raise DataError(f"commit file {where} cannot be read ({error}); {_REMEDY}") from error
        rows = self.header.rows(block)
        if commit.store != self.digest:
            raise DataError(
                f"{where} belongs to a store with other attributes (digest {commit.store}, not {self.digest}): "
                "labels of another teacher, recipe or data set; remove the folder of this seed"
            )
        if (commit.seed, commit.block, commit.rows) != (seed, block, (rows.start, rows.stop)):
            raise DataError(
                f"{where} commits block {commit.block} of seed {commit.seed}, not block {block} of seed {seed}; "
                f"put it back where it was; or {_REMEDY}"
            )
        largest = self._files(block, commit)
        wrong = largest.keys() ^ commit.files.keys()
        if wrong:
            raise DataError(
                f"{where} does not list the files of its block ({', '.join(sorted(wrong))} missing or too many); "
                f"{_REMEDY}"
            )
        for file, most in largest.items():
            size = commit.files[file]["bytes"]
            if not 0 <= size <= most:
                raise DataError(f"{where} says that {file} has {size:,} bytes, at most {most:,} are due; {_REMEDY}")
        return commit

    def read(self, seed: int, block: int, name: str) -> Records:
        """The records of a committed block in the encoding of this name, its files compared with their checksums.

        Raises:
            DataError: it is not committed, or a file of it is damaged; names the file.
        """
        field = self.encodings[name].field
        commit = self.commit(seed, block)
        stored = StoredRows(self._read(field, commit), self._read_spill(field, commit))
        page, count = self.rows_of_chunk(seed, field), len(self.header.rows(block))
        try:
            return self.encodings[name].unpack(stored, page=page, count=count)
        except DataError as error:
            raise self._damaged(layout.shard_name(field, block), commit, str(error)) from error

    def read_crop_crc(self, seed: int, block: int) -> npt.NDArray[np.uint32]:
        """The crop checksums of a committed block, uint32.

        Raises:
            DataError: it is not committed, or a file of it is damaged; names the file.
        """
        return self._read(layout.CROP_CRC, self.commit(seed, block))[: len(self.header.rows(block))]

    def _files(self, block: int, commit: Commit) -> dict[str, int]:
        """Files that a commit of this block must list -> the most bytes each can have; a spill is two files."""
        files = {
            layout.shard_name(field, block): layout.largest_shard(field, self.header.block) for field in self.fields
        }
        for field in self.fields:
            if _spills(field, commit):
                metadata, chunk = layout.spill_names(field, block)
                files |= {metadata: layout.MAX_METADATA_BYTES, chunk: layout.MAX_SPILL_BYTES * 2}
        return files

    def _read(self, field: FieldSpec, commit: Commit) -> npt.NDArray[Any]:
        """The rows of a block's shard in whole chunks: the last may hold padding."""
        name = layout.shard_name(field, commit.block)
        count, block = len(self.header.rows(commit.block)), self.header.block
        chunk = self.rows_of_chunk(commit.seed, field)
        content = self.read_file(name, commit)
        try:
            return decode_rows(content, count, block=block, chunk=chunk, dtype=field.dtype, row_shape=field.row_shape)
        except ValueError as error:
            raise self._damaged(name, commit, str(error)) from error

    def _read_spill(self, field: FieldSpec, commit: Commit) -> npt.NDArray[np.uint8]:
        """uint8, what did not fit a block's rows; mostly empty."""
        if not _spills(field, commit):
            return np.empty(0, np.uint8)
        metadata, chunk = layout.spill_names(field, commit.block)
        name = metadata
        try:
            values = np.empty(spill_length(self.read_file(name, commit)), np.uint8)
            name = chunk
            decode_into(self.read_file(name, commit), values)
            return values
        except ValueError as error:
            raise self._damaged(name, commit, str(error)) from error

    def read_file(self, name: str, commit: Commit) -> bytes:
        """The file of a block that is called `name` below the seed's group, equal to what was committed.

        Raises:
            DataError: it is damaged or missing; names it.
        """
        path = f"{layout.seed_name(commit.seed)}/{name}"
        expected = commit.files[name]
        try:
            content = self.storage.read(path, limit=int(expected["bytes"]))
        except (FileNotFoundError, DataError):
            self._require_size(name, commit, self.storage.size(path))
            raise
        self._require_size(name, commit, len(content))
        found = file_facts(content)
        if found != expected:
            raise self._damaged(name, commit, f"its crc32c is {found['crc32c']}, not {expected['crc32c']}")
        return content

    def _require_size(self, name: str, commit: Commit, found: int | None) -> None:
        # zarr would silently read a missing or empty shard as fill values.
        expected = commit.files[name]["bytes"]
        if found != expected:
            size = "it is missing" if found is None else f"{found:,} bytes"
            raise self._damaged(name, commit, f"{size}, {expected:,} bytes were committed")

    def _damaged(self, name: str, commit: Commit, found: str) -> DataError:
        return damaged(self.storage.at(f"{layout.seed_name(commit.seed)}/{name}"), found)

    def rows_of_chunk(self, seed: int, field: FieldSpec) -> int:
        """Rows of a chunk of a seed's array, whose metadata otherwise follows from the header.

        Raises:
            DataError: the metadata is damaged or missing; names the file.
        """
        name = f"{layout.seed_name(seed)}/{field.name}/{layout.METADATA}"
        if name not in self._chunk_rows:
            try:
                content = self.storage.read(name, limit=layout.MAX_METADATA_BYTES)
                self._chunk_rows[name] = chunk_rows(content, field, self.header)
            except (ValueError, DataError) as error:
                raise damaged(self.storage.at(name), str(error)) from error
            except FileNotFoundError as error:
                raise damaged(self.storage.at(name), "it is missing") from error
        return self._chunk_rows[name]

    def each(self, read: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
        """`read` applied to each item; concurrently where each is a network request."""
        if isinstance(self.storage, FolderStorage):
            return [read(item) for item in items]
        with ThreadPoolExecutor(_REQUESTS) as pool:
            return list(pool.map(read, items))


_REMEDY = "`cskd-pipeline repair` makes the block again"


def damaged(where: str, found: str) -> DataError:
    """The error for a file that differs from what a writer wrote."""
    return DataError(f"{where} is damaged ({found}); `cskd-pipeline repair` makes it again")


def _spills(field: FieldSpec, commit: Commit) -> bool:
    return any(name.startswith(layout.spill_group(field) + "/") for name in commit.files)
