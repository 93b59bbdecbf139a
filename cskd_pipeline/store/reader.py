"""Reading what is committed, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr

from cskd_pipeline.encodings import FieldSpec, Records, StoredRows
from cskd_pipeline.errors import DataError, UsageError
from cskd_pipeline.store import layout
from cskd_pipeline.store.arrays import Array, damaged, open_field
from cskd_pipeline.store.commit import Commit, commit_path
from cskd_pipeline.store.opening import read_header


class StoreReader:
    """A store opened for reading. Opening reads one small file; nothing is cached but array metadata."""

    def __init__(self, path: Path) -> None:
        """Open the store at `path`.

        Raises:
            DataError: no store is there.
            MismatchError: it is of a newer format.
        """
        self.path = path
        self.header = read_header(path)
        self.digest = self.header.digest()
        try:
            self.encodings = self.header.decoded_encodings()
        except UsageError as error:
            raise DataError(f"the attributes of {path} are damaged ({error})") from error
        self._arrays: dict[str, Array] = {}

    def seeds(self) -> list[int]:
        """Every seed of which something is committed, ascending."""
        found = [layout.seed_of(entry.name) for entry in self.path.iterdir() if entry.is_dir()]
        return sorted(seed for seed in found if seed is not None and self.committed(seed))

    def committed(self, seed: int) -> list[int]:
        """The committed blocks of a seed, ascending."""
        folder = self.path / layout.seed_name(seed)
        present = {entry.name for entry in (folder / "commits").glob("*.json")}
        return [block for block in range(self.header.blocks) if commit_path(folder, block).name in present]

    def complete_seeds(self) -> list[int]:
        """The seeds that a student may train on."""
        return [seed for seed in self.seeds() if len(self.committed(seed)) == self.header.blocks]

    def require_complete(self, seeds: list[int]) -> None:
        """Nothing, if all blocks of these seeds are committed and their files are there, of the committed sizes.

        Raises:
            DataError: a seed is incomplete, says how far it is; or a file is missing or cut off, names it.
        """
        for seed in seeds:
            done = self.committed(seed)
            if len(done) < self.header.blocks:
                raise DataError(
                    f"seed {seed} of {self.path} is incomplete: {len(done)} of {self.header.blocks} blocks; "
                    f"run precompute with --seeds {seed} to finish it, or train on {_phrase(self.complete_seeds())}"
                )
            for block in done:
                commit = self.commit(seed, block)
                for name in commit.files:
                    self._require_size(self.path / layout.seed_name(seed) / name, commit)

    def commit(self, seed: int, block: int) -> Commit:
        """The commit of a block.

        Raises:
            DataError: the block is not committed, or by a file that belongs to another store or block.
        """
        path = commit_path(self.path / layout.seed_name(seed), block)
        if not path.exists():
            raise DataError(f"block {block} of seed {seed} in {self.path} is not committed; run precompute to make it")
        commit = Commit.read(path)
        rows = self.header.rows(block)
        if commit.store != self.digest:
            raise DataError(
                f"{path} belongs to a store with other attributes (digest {commit.store}, not {self.digest}): "
                "labels of another teacher, recipe or data set; remove the folder of this seed"
            )
        if (commit.seed, commit.block, commit.rows) != (seed, block, (rows.start, rows.stop)):
            raise DataError(
                f"{path} commits block {commit.block} of seed {commit.seed}, not block {block} of seed {seed}; "
                f"put it back where it was, or delete it and run precompute again"
            )
        wrong = self._files(seed, block, commit) ^ commit.files.keys()
        if wrong:
            raise DataError(
                f"{path} does not list the files of its block ({', '.join(sorted(wrong))} missing or too many); "
                "delete it and run precompute again to redo the block"
            )
        return commit

    def _files(self, seed: int, block: int, commit: Commit) -> set[str]:
        """The files that a commit of this block lists; spilled bytes are there or not, but if so in two files."""
        folder = self.path / layout.seed_name(seed)
        files = [layout.shard_file(folder, layout.CROP_CRC, block)]
        for encoding in self.encodings.values():
            files.append(layout.shard_file(folder, encoding.field, block))
            if _spills(encoding.field, commit):
                files += layout.spill_files(folder, encoding.field, block)
        return {file.relative_to(folder).as_posix() for file in files}

    def read(self, seed: int, block: int, name: str, *, rows: slice | None = None) -> Records:
        """The records of a committed block in one of its encodings.

        Args:
            seed: the block's seed.
            block: its number.
            name: of the encoding.
            rows: which of the block's crops, without a step; all by default. Whole chunks are read.

        Raises:
            DataError: it is not committed, or a file of it is damaged; names the file.
        """
        encoding = self.encodings[name]
        commit = self.commit(seed, block)
        array = self._array(seed, encoding.field)
        page = int(array.chunks[0])
        count = commit.rows[1] - commit.rows[0]
        begin, end, _ = (rows or slice(None)).indices(count)
        first = min(begin, count - 1) // page * page
        last = max(first + page, -(-end // page) * page)
        stored = StoredRows(
            self._read(seed, encoding.field, block, commit, slice(first, last)),
            self._read_spill(seed, encoding.field, block, commit)
            if _spills(encoding.field, commit)
            else np.empty(0, np.uint8),
            whole=first == 0 and last >= count,
        )
        try:
            records = encoding.unpack(stored, page=page, count=min(last, count) - first)
        except DataError as error:
            folder = self.path / layout.seed_name(seed)
            shard = layout.shard_file(folder, encoding.field, block)
            raise damaged(shard, str(error), commit=commit_path(folder, block)) from error
        return records if rows is None else records.take(np.arange(begin - first, end - first))

    def read_crop_crc(self, seed: int, block: int) -> npt.NDArray[np.uint32]:
        """The crop checksums of a committed block, uint32.

        Raises:
            DataError: it is not committed, or a file of it is damaged; names the file.
        """
        rows = self.header.rows(block)
        return self._read(seed, layout.CROP_CRC, block, self.commit(seed, block), slice(0, len(rows)))

    def _read(self, seed: int, field: FieldSpec, block: int, commit: Commit, rows: slice) -> npt.NDArray[Any]:
        """Rows of a block's shard, padding included."""
        folder = self.path / layout.seed_name(seed)
        shard = layout.shard_file(folder, field, block)
        self._require_size(shard, commit)
        first = block * self.header.block
        array = self._array(seed, field)
        try:
            values = np.asarray(array[first + rows.start : first + rows.stop])
        except Exception as error:  # zarr and the codecs raise many kinds for one thing: the shard is bad
            raise damaged(shard, str(error) or type(error).__name__, commit=commit_path(folder, block)) from error
        return values

    def _read_spill(self, seed: int, field: FieldSpec, block: int, commit: Commit) -> npt.NDArray[np.uint8]:
        seed_folder = self.path / layout.seed_name(seed)
        for file in layout.spill_files(seed_folder, field, block):
            self._require_size(file, commit)
        folder = layout.spill_folder(seed_folder, field, block)
        try:
            array = zarr.open_array(folder, mode="r", zarr_format=3)
            if array.ndim != 1 or array.dtype != np.uint8 or array.chunks != array.shape or array.shape[0] >= 1 << 32:
                raise ValueError(f"a spill of {array.dtype} {array.shape} in chunks of {array.chunks}")
            return np.asarray(array[:])
        except Exception as error:
            raise damaged(folder, str(error) or type(error).__name__, commit=commit_path(seed_folder, block)) from error

    def _require_size(self, file: Path, commit: Commit) -> None:
        # zarr reads a missing or empty shard as fill values without a word.
        folder = self.path / layout.seed_name(commit.seed)
        expected = commit.files[file.relative_to(folder).as_posix()]["bytes"]
        found = f"{file.stat().st_size:,} bytes" if file.exists() else "it is missing"
        if found != f"{expected:,} bytes":
            redo = commit_path(folder, commit.block)
            raise damaged(file, f"{found}, {expected:,} bytes were committed", commit=redo)

    def _array(self, seed: int, field: FieldSpec) -> Array:
        name = f"{layout.seed_name(seed)}/{field.name}"
        if name not in self._arrays:
            self._arrays[name] = open_field(self.path / layout.seed_name(seed), field, self.header)
        return self._arrays[name]


def _spills(field: FieldSpec, commit: Commit) -> bool:
    return any(name.startswith(layout.spill_name(field) + "/") for name in commit.files)


def _phrase(seeds: list[int]) -> str:
    return "the complete seeds " + ", ".join(map(str, seeds)) if seeds else "a complete seed (there is none yet)"
