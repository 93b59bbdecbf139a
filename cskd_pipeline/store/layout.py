"""Names inside a store, and upper bounds on sizes."""

from __future__ import annotations

import re

from cskd_pipeline.labels import FieldSpec

CROP_CRC = FieldSpec("crop_crc", "<u4", ())
CHUNK_BYTES = 1 << 20
MAX_CHUNK_ROWS = 1024

METADATA = "zarr.json"
COMMITS = "commits"
CLAIMS = ".claims"
WRITERS = ".writers"
CARD = "README.md"
"""A data set card; may be in a store."""
TEACHER_CHECK = "teacher_check.json"
"""What the teacher was found to know; may be in a store."""

_BESIDE = re.compile(r"README\.md|files\.json|teacher_check\.json|\.gitattributes|\.cache/huggingface/.+")

MAX_METADATA_BYTES = 1 << 20
MAX_COMMIT_BYTES = 1 << 20
MAX_BLOCK = 1 << 24
"""Samples."""
MAX_BLOCK_BYTES = 1 << 30
"""A block's rows in one field, uncompressed; also its entries in a decoded table."""
MAX_SPILL_BYTES = 1 << 30

_SEED_FOLDER = re.compile(r"seed-(\d{6,9})")
_COMMIT = re.compile(r"(\d{6,12})\.json")


def seed_name(seed: int) -> str:
    """Name of a seed's group."""
    return f"seed-{seed:06d}"


def seed_of(folder: str) -> int | None:
    """The seed whose group has this name, or None."""
    match = _SEED_FOLDER.fullmatch(folder)
    return int(match[1]) if match and seed_name(int(match[1])) == folder else None


def commit_name(block: int) -> str:
    """Name of a block's commit file below its seed's group."""
    return f"{COMMITS}/{block:06d}.json"


def block_of(file: str) -> int | None:
    """The block whose commit file has this last path component, or None."""
    match = _COMMIT.fullmatch(file)
    return int(match[1]) if match and commit_name(int(match[1])) == f"{COMMITS}/{file}" else None


def may_lie_beside(name: str) -> bool:
    """Whether a file of this name may be in a store without being part of it, as in published stores."""
    return _BESIDE.fullmatch(name) is not None


def chunk_rows(field: FieldSpec, block: int) -> int:
    """Rows of a chunk: the block halved until it is odd, or at most 1,024 rows and about 1 MiB."""
    rows = block
    while rows % 2 == 0 and (rows > MAX_CHUNK_ROWS or rows * field.row_bytes > CHUNK_BYTES):
        rows //= 2
    return rows


def largest_shard(field: FieldSpec, block: int) -> int:
    """An upper bound on a shard's bytes: zstd adds less than 1 %, plus some bytes per chunk."""
    return block * field.row_bytes + block * field.row_bytes // 100 + 64 * block + 4096


def shard_name(field: FieldSpec, block: int) -> str:
    """Name of a block's shard below its seed's group: one shard holds the block's whole rows."""
    return "/".join([field.name, "c", str(block), *("0" for _ in field.row_shape)])


def spill_group(field: FieldSpec) -> str:
    """Name of the group for what did not fit a field's rows, one array per block."""
    return f"{field.name}_spill"


def spill_names(field: FieldSpec, block: int) -> tuple[str, str]:
    """Names of the metadata and of the one chunk of a block's spill array, which exists only if rows overflowed."""
    folder = f"{spill_group(field)}/{block:06d}"
    return f"{folder}/{METADATA}", f"{folder}/c/0"
