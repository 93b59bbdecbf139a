"""The text of every `zarr.json` in a store, a function of the header to the byte; what is read back is not trusted."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from cskd_pipeline.labels import FieldSpec
from cskd_pipeline.store import layout
from cskd_pipeline.store.header import StoreHeader

ZSTD_LEVEL = 3
_MAX_DEPTH = 32


def parse_json(content: bytes) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: it is not JSON, or nested deeper than anything in a store.
    """
    try:
        value = json.loads(content)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    level = [value]
    for _ in range(_MAX_DEPTH):
        level = [
            item
            for outer in level
            if isinstance(outer, dict | list)
            for item in (outer.values() if isinstance(outer, dict) else outer)
        ]
    if level:
        raise ValueError("it is nested too deeply")
    return value


def fill_value(dtype: np.dtype[Any]) -> Any:
    """The value of padding, which no crop has."""
    return np.nan if dtype.kind == "f" else int(np.iinfo(dtype).max)


def group_text(attributes: dict[str, Any]) -> bytes:
    """The metadata of a group."""
    return _text({"attributes": attributes, "zarr_format": 3, "node_type": "group"})


def group_attributes(content: bytes) -> dict[str, Any]:
    """The attributes in the metadata of a group.

    Raises:
        ValueError: it is not such metadata.
    """
    group = parse_json(content)
    if (
        not isinstance(group, dict)
        or group.get("node_type") != "group"
        or not isinstance(group.get("attributes"), dict)
    ):
        raise ValueError("it describes no zarr group with attributes")
    attributes: dict[str, Any] = group["attributes"]
    return attributes


def array_text(field: FieldSpec, header: StoreHeader, *, rows: int | None = None) -> bytes:
    """The metadata of a field's array in a seed, in chunks of `rows` rows or the default number."""
    return _text(_array(field, header, rows or layout.chunk_rows(field, header.block)))


def chunk_rows(content: bytes, field: FieldSpec, header: StoreHeader) -> int:
    """The rows of an inner chunk, read from the metadata of a field's array.

    Raises:
        ValueError: it is not such metadata, or describes another shape, type, shards or codecs.
    """
    found = parse_json(content)
    try:
        rows = found["codecs"][0]["configuration"]["chunk_shape"][0]
    except (KeyError, IndexError, TypeError) as error:
        raise ValueError("it describes no sharded array") from error
    if not isinstance(rows, int) or rows < 1 or header.block % rows or rows * field.row_bytes > layout.MAX_BLOCK_BYTES:
        raise ValueError(f"its chunks have {rows!r} rows, its blocks {header.block}")
    expected = _array(field, header, rows)
    for name in sorted(expected.keys() | found.keys()):
        if _plain(found.get(name)) != _plain(expected.get(name)) and name != "attributes":
            raise ValueError(f"its {name} is {_short(found.get(name))}, not {_short(expected.get(name))}")
    return rows


def spill_text(length: int) -> bytes:
    """The metadata of a block's spill array of this many bytes."""
    return _text(_outline((length,), (length,), np.dtype(np.uint8), _compressed(np.dtype(np.uint8))))


def spill_length(content: bytes) -> int:
    """The length in bytes of a spill array, read from its metadata.

    Raises:
        ValueError: it is not such metadata, or describes a larger array than any writer makes.
    """
    found = parse_json(content)
    try:
        length = found["shape"][0]
    except (KeyError, IndexError, TypeError) as error:
        raise ValueError("it describes no array") from error
    if not isinstance(length, int) or not 0 < length <= layout.MAX_SPILL_BYTES:
        raise ValueError(f"a spill of {length!r} bytes")
    if _plain(found) != _plain(json.loads(spill_text(length))):
        raise ValueError("it describes no array of uint8 in one compressed chunk")
    return length


def _array(field: FieldSpec, header: StoreHeader, rows: int) -> dict[str, Any]:
    dtype = np.dtype(field.dtype)
    shards = {
        "name": "sharding_indexed",
        "configuration": {
            "chunk_shape": [rows, *field.row_shape],
            "codecs": _compressed(dtype),
            "index_codecs": [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}],
            "index_location": "end",
        },
    }
    shape = (header.blocks * header.block, *field.row_shape)
    return _outline(shape, (header.block, *field.row_shape), dtype, [shards])


def _outline(
    shape: tuple[int, ...], grid: tuple[int, ...], dtype: np.dtype[Any], codecs: list[dict[str, Any]]
) -> dict[str, Any]:
    fill = fill_value(dtype)
    return {
        "shape": list(shape),
        "data_type": dtype.name,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(grid)}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": "NaN" if fill != fill else fill,
        "codecs": codecs,
        "attributes": {},
        "zarr_format": 3,
        "node_type": "array",
        "storage_transformers": [],
    }


def _compressed(dtype: np.dtype[Any]) -> list[dict[str, Any]]:
    plain: dict[str, Any] = {"name": "bytes"}
    if dtype.itemsize > 1:
        plain["configuration"] = {"endian": "little"}
    return [plain, {"name": "zstd", "configuration": {"level": ZSTD_LEVEL, "checksum": True}}]


def _plain(value: Any) -> Any:
    """The value without compression levels, which may differ between writers."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items() if key != "level"}
    return [_plain(item) for item in value] if isinstance(value, list) else value


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _text(value: dict[str, Any]) -> bytes:
    return json.dumps(value, indent=2).encode()
