"""The array of one field of one seed: its metadata, written alone, and opened with every doubt raised."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import zarr
from zarr.codecs import ZstdCodec
from zarr.storage import MemoryStore

from cskd_pipeline.encodings import FieldSpec
from cskd_pipeline.errors import DataError
from cskd_pipeline.records.durable import write_atomic
from cskd_pipeline.store import layout
from cskd_pipeline.store.header import StoreHeader

ZSTD = ZstdCodec(level=3, checksum=True)
"""The checksum is what makes a flipped bit an error."""

Array = zarr.Array[Any]


def fill_value(dtype: np.dtype[Any]) -> Any:
    """What padding holds: no value that a writer gives a crop."""
    return np.nan if dtype.kind == "f" else np.iinfo(dtype).max


def open_field(seed_folder: Path, field: FieldSpec, header: StoreHeader, *, mode: Literal["r", "r+"] = "r") -> Array:
    """The array, which has the shape, type and shards that the header asks for.

    Raises:
        DataError: it has not, or cannot be opened; names the file.
    """
    metadata = seed_folder / field.name / "zarr.json"
    try:
        array = zarr.open_array(metadata.parent, mode=mode, zarr_format=3)
        found = array.shape, array.dtype, array.shards
        fits = found == (_shape(field, header), np.dtype(field.dtype), (header.block, *field.row_shape))
        if not fits or array.chunks[1:] != field.row_shape or header.block % int(array.chunks[0]):
            raise ValueError(f"{array.dtype} {array.shape} in shards of {array.shards} and chunks of {array.chunks}")
    except Exception as error:  # zarr raises many kinds for one thing: the metadata is bad
        commit = next((seed_folder / "commits").glob("*.json"), seed_folder / "commits")
        raise damaged(metadata, str(error) or type(error).__name__, commit=commit) from error
    return array


def write_metadata(seed_folder: Path, field: FieldSpec, header: StoreHeader) -> None:
    """Write the array's `zarr.json` and touch nothing else: shards may lie beside it.

    Raises:
        RetryError: the storage refuses.
    """
    dtype = np.dtype(field.dtype)
    files: dict[str, Any] = {}
    zarr.create_array(
        MemoryStore(files),
        shape=_shape(field, header),
        shards=(header.block, *field.row_shape),
        chunks=(layout.chunk_rows(field, header.block), *field.row_shape),
        dtype=dtype,
        compressors=[ZSTD],
        fill_value=fill_value(dtype),
        zarr_format=3,
    )
    folder = seed_folder / field.name
    folder.mkdir(exist_ok=True)
    content = files["zarr.json"].to_bytes()
    write_atomic(folder / "zarr.json", lambda file: file.write(content))


def damaged(path: Path, found: str, *, commit: Path) -> DataError:
    """The error for a file that is not what a writer left, and belongs to the block of this commit file."""
    return DataError(f"{path} is damaged ({found}); delete {commit} and run precompute again to redo it")


def _shape(field: FieldSpec, header: StoreHeader) -> tuple[int, ...]:
    return (header.blocks * header.block, *field.row_shape)
