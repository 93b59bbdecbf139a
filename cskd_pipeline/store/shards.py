"""The bytes of shards and spill chunks: written by zarr, read chunk by chunk into memory of the expected size.

A file's claim about its own size is never trusted: each chunk is decoded into an array allocated from the store's
header, and a chunk that holds more or less is refused.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from google_crc32c import value as crc32c
from numcodecs.zstd import Zstd
from numpy.typing import NDArray

from cskd_pipeline.store.metadata import ZSTD_LEVEL, fill_value

_ENTRY_BYTES, _CRC_BYTES = 16, 4
_FRAME = b"\x28\xb5\x2f\xfd"
_SIZE_BYTES = {0: 0, 1: 2, 2: 4, 3: 8}
_DICTIONARY_BYTES = (0, 1, 2, 4)


def encode_shard(rows: NDArray[Any], *, chunk: int) -> bytes:
    """The shard that holds these rows in chunks of `chunk` rows."""
    return _encode(rows, shards=rows.shape, chunks=(chunk, *rows.shape[1:]))


def encode_chunk(values: NDArray[Any]) -> bytes:
    """The one chunk of an array that is not sharded."""
    return _encode(values, shards=None, chunks=values.shape)


def _encode(values: NDArray[Any], *, shards: tuple[int, ...] | None, chunks: tuple[int, ...]) -> bytes:
    import zarr
    from zarr.codecs import ZstdCodec
    from zarr.storage import MemoryStore

    files: dict[str, Any] = {}
    array = zarr.create_array(
        MemoryStore(files),
        shape=values.shape,
        shards=shards,
        chunks=chunks,
        dtype=values.dtype,
        compressors=[ZstdCodec(level=ZSTD_LEVEL, checksum=True)],
        fill_value=fill_value(values.dtype),
        zarr_format=3,
        config={"write_empty_chunks": True},
    )
    array[...] = values
    content: bytes = files["/".join(["c", *("0" for _ in values.shape)])].to_bytes()
    return content


def decode_rows(
    shard: bytes, count: int, *, block: int, chunk: int, dtype: str, row_shape: tuple[int, ...]
) -> NDArray[Any]:
    """The first `count` rows of a shard of `block` rows, and the others of the last chunk that holds any of them.

    Raises:
        ValueError: the shard is damaged, or holds chunks of another size.
    """
    values = np.empty((-(-count // chunk), chunk, *row_shape), np.dtype(dtype))
    for rows, (offset, length) in zip(values, _index(shard, block // chunk).tolist(), strict=False):
        decode_into(shard[offset : offset + length], rows)
    return values.reshape(len(values) * chunk, *row_shape)


def decode_into(content: bytes, values: NDArray[Any]) -> None:
    """Fill `values`, which is contiguous, with the content of a compressed chunk.

    Raises:
        ValueError: the chunk is damaged, or of another size.
    """
    size = _content_size(content)
    if size != values.nbytes:
        raise ValueError(f"a chunk of {size} bytes, {values.nbytes} are due")
    try:
        Zstd().decode(content, values.reshape(-1).view(np.uint8))
    except RuntimeError as error:
        raise ValueError(str(error)) from error


def _index(shard: bytes, chunks: int) -> NDArray[np.uint64]:
    """uint64 [chunks, 2], offset and length of every chunk."""
    tail = shard[-(chunks * _ENTRY_BYTES + _CRC_BYTES) :]
    table, stored = tail[:-_CRC_BYTES], tail[-_CRC_BYTES:]
    if len(table) != chunks * _ENTRY_BYTES or crc32c(table).to_bytes(4, "little") != stored:
        raise ValueError("the index of its chunks is damaged")
    index = np.frombuffer(table, "<u8").reshape(chunks, 2)
    room = np.uint64(len(shard) - len(tail))
    if (index[:, 0] > room).any() or (index[:, 1] > room - index[:, 0]).any():
        raise ValueError("the index names chunks that are missing or lie outside")
    return index


def _content_size(frame: bytes) -> int | None:
    """The decoded size that a zstd frame (RFC 8878) claims; None if it claims none."""
    if len(frame) < 6 or frame[:4] != _FRAME:
        raise ValueError("a chunk is no zstd frame")
    flags = frame[4]
    single = bool(flags & 0x20)
    length = _SIZE_BYTES[flags >> 6] or int(single)
    at = 5 + (not single) + _DICTIONARY_BYTES[flags & 3]
    size = int.from_bytes(frame[at : at + length], "little") + (256 if length == 2 else 0)
    return size if length else None
