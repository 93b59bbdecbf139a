"""Names and array shapes inside a store."""

from __future__ import annotations

import re
from pathlib import Path

from cskd_pipeline.encodings import FieldSpec

CROP_CRC = FieldSpec("crop_crc", "<u4", ())
CHUNK_BYTES = 1 << 20
MAX_CHUNK_ROWS = 1024

_SEED_FOLDER = re.compile(r"seed-(\d{6,})")


def seed_name(seed: int) -> str:
    """Name of a seed's group."""
    return f"seed-{seed:06d}"


def seed_of(folder: str) -> int | None:
    """The seed whose group has this name, or None."""
    match = _SEED_FOLDER.fullmatch(folder)
    return int(match[1]) if match else None


def spill_name(field: FieldSpec) -> str:
    """Name of the group that holds what did not fit a field's rows, one array a block."""
    return f"{field.name}_spill"


def spill_array(block: int) -> str:
    """Name of a block's array in the spill group."""
    return f"{block:06d}"


def chunk_rows(field: FieldSpec, block: int) -> int:
    """Rows of a chunk: a power-of-two share of the block, at most 1,024 rows and about 1 MiB."""
    rows = block
    while rows % 2 == 0 and (rows > MAX_CHUNK_ROWS or rows * field.row_bytes > CHUNK_BYTES):
        rows //= 2
    return rows


def shard_file(seed_folder: Path, field: FieldSpec, block: int) -> Path:
    """The file of a block's shard: one shard spans the block and all of a row."""
    return seed_folder.joinpath(field.name, "c", str(block), *("0" for _ in field.row_shape))


def spill_folder(seed_folder: Path, field: FieldSpec, block: int) -> Path:
    """The folder of a block's spill array, which exists only where rows overflowed."""
    return seed_folder / spill_name(field) / spill_array(block)


def spill_files(seed_folder: Path, field: FieldSpec, block: int) -> list[Path]:
    """The files of a block's spill array: its metadata and its one chunk."""
    folder = spill_folder(seed_folder, field, block)
    return [folder / "zarr.json", folder / "c" / "0"]
