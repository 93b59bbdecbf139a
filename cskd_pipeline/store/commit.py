"""The commit file of one (seed, block): written last, it makes the block's shards count."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from google_crc32c import extend

from cskd_pipeline.errors import DataError, UsageError
from cskd_pipeline.records.durable import write_atomic
from cskd_pipeline.records.frozen import Record


@dataclasses.dataclass(frozen=True, slots=True)
class Commit(Record):
    """What a committed block consists of.

    Attributes:
        seed, block: what it is.
        rows: first sample and one past the last.
        files: path below the seed's folder -> {"crc32c": eight hex digits, "bytes": size} for every shard.
        versions: library versions of the writer.
    """

    seed: int
    block: int
    rows: tuple[int, int]
    files: dict[str, dict[str, Any]]
    versions: dict[str, str]

    def write(self, path: Path) -> None:
        """Put the commit on stable storage."""
        text = json.dumps(self.to_json(), indent=1, sort_keys=True) + "\n"
        write_atomic(path, lambda file: file.write(text.encode()))

    @classmethod
    def read(cls, path: Path) -> Commit:
        """The commit at `path`.

        Raises:
            DataError: it is not one.
        """
        try:
            return cls.from_json(json.loads(path.read_text()))
        except (OSError, ValueError, TypeError, UsageError) as error:
            raise DataError(
                f"commit file {path} cannot be read ({error}); delete it and run precompute again to redo the block"
            ) from error


def commit_path(seed_folder: Path, block: int) -> Path:
    """Where the commit file of a block lies."""
    return seed_folder / "commits" / f"{block:06d}.json"


def file_facts(path: Path) -> dict[str, Any]:
    """crc32c and size of a file."""
    crc, size = 0, 0

    with path.open("rb") as file:
        while part := file.read(1 << 22):
            crc, size = extend(crc, part), size + len(part)
    return {"crc32c": f"{crc:08x}", "bytes": size}
