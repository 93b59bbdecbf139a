"""A store's own description: everything that decides whether a request may use it."""

from __future__ import annotations

import dataclasses
from typing import Any

from cskd_pipeline.errors import MismatchError, UsageError
from cskd_pipeline.labels import Encoding, encodings_from_json
from cskd_pipeline.record import Record, require_range
from cskd_pipeline.store import layout

FORMAT = "cskd-labels"
FORMAT_VERSION = 1
MIN_BLOCK, MAX_BLOCK = 1024, 32768
MAX_SAMPLES, MAX_CLASSES, MAX_SIDE = 1 << 40, 1 << 24, 1 << 12
"""Far above any real store: a damaged or hostile one must not cause absurd work."""

_BRIEF = 100
"""Characters of a value that an error shows whole."""


@dataclasses.dataclass(frozen=True, slots=True)
class StoreHeader(Record):
    """The attributes of a store's root group.

    Attributes:
        recipe: the crop recipe's fields.
        data: name, split, samples (S), classes (C) and digest of the index.
        teacher: timm name, weights digest, arguments, input normalisation, precision, chunk, global source.
        grid: (H, W).
        encodings: name of each encoding (and of its array) -> settings.
        block: samples per block, the unit of commitment and one shard of every array.
        format: always "cskd-labels".
        format_version: 1.
    """

    recipe: dict[str, Any]
    data: dict[str, Any]
    teacher: dict[str, Any]
    grid: tuple[int, int]
    encodings: dict[str, dict[str, Any]]
    block: int
    format: str = FORMAT
    format_version: int = FORMAT_VERSION

    def __post_init__(self) -> None:
        if self.format != FORMAT:
            raise UsageError(f"a label store has format {FORMAT!r}, found {self.format!r}")
        require_range("format_version", self.format_version, low=FORMAT_VERSION, high=FORMAT_VERSION, whole=True)
        for name in ("recipe", "data", "teacher", "encodings"):
            if not isinstance(getattr(self, name), dict):
                raise UsageError(f"{name} of a label store has named fields, found {getattr(self, name)!r}")
        for name in ("name", "split", "samples", "classes", "digest"):
            if name not in self.data:
                raise UsageError(f"a label store says which data it belongs to; {name} is missing")
        require_range("data: samples", self.data["samples"], low=1, high=MAX_SAMPLES, whole=True)
        require_range("data: classes", self.data["classes"], low=1, high=MAX_CLASSES, whole=True)
        if not isinstance(self.grid, tuple) or len(self.grid) != 2:
            raise UsageError(f"the grid of a label store has a height and a width, found {self.grid!r}")
        for side in self.grid:
            require_range("grid", side, low=1, high=MAX_SIDE, whole=True)
        if not self.encodings or not all(isinstance(settings, dict) for settings in self.encodings.values()):
            raise UsageError(f"a label store holds at least one encoding with its settings, found {self.encodings!r}")
        require_range("block", self.block, low=2, high=layout.MAX_BLOCK, whole=True)
        if self.block % 2:
            raise UsageError(f"a block needs an even number of samples, found {self.block}")

    def decoded_encodings(self) -> dict[str, Encoding]:
        """The encodings by name.

        Raises:
            UsageError: a name or a setting is unknown, or its sizes contradict the rest of the header.
        """
        encodings = encodings_from_json(self.encodings)
        sizes = self.grid[0] * self.grid[1], self.data["classes"]
        for name, encoding in encodings.items():
            if (encoding.positions, encoding.classes) != sizes:
                raise UsageError(
                    f"encoding {name} has {encoding.positions} positions and {encoding.classes} classes, "
                    f"grid and data have {sizes[0]} and {sizes[1]}"
                )
            size = self.block * max(encoding.field.row_bytes, encoding.table.row_bytes)
            if size > layout.MAX_BLOCK_BYTES:
                raise UsageError(
                    f"a block of {self.block:,} samples takes {size:,} bytes in encoding {name}, at most "
                    f"{layout.MAX_BLOCK_BYTES:,} are allowed; use smaller blocks"
                )
        return encodings

    @property
    def samples(self) -> int:
        """S."""
        return int(self.data["samples"])

    @property
    def blocks(self) -> int:
        """Blocks per seed; the last may be partial."""
        return -(-self.samples // self.block)

    def rows(self, block: int) -> range:
        """The samples of a block."""
        return range(block * self.block, min((block + 1) * self.block, self.samples))

    def require_same(self, wanted: StoreHeader, *, where: str, remedy: str) -> None:
        """Raise MismatchError, with every differing field and both values, unless `wanted` equals this header.

        What the data is called does not matter where its digest is the same: it may lie elsewhere by now. The error
        names the store by `where`.
        """
        ours, theirs = self.to_json(), wanted.to_json()
        if self.data["digest"] == wanted.data["digest"]:
            theirs["data"] |= {name: self.data[name] for name in ("name", "split")}
        differences = _differences("", ours, theirs)
        if differences:
            raise MismatchError(
                f"{where} was made with other settings: "
                + "; ".join(
                    f"{name} is {_brief(ours)} in the store, {_brief(theirs)} was asked for"
                    for name, ours, theirs in differences
                )
                + f"; {remedy}"
            )


def default_block(samples: int, row_bytes: int) -> int:
    """Samples per block, a power of two: at most 32,768 and 256 MiB of rows, and at least eight blocks if possible."""
    by_size = 1 << max(1, ((256 << 20) // max(1, row_bytes)).bit_length() - 1)
    by_count = 1 << max(1, (samples // 8).bit_length() - 1)
    return min(MAX_BLOCK, by_size, max(MIN_BLOCK, by_count))


def _differences(prefix: str, ours: Any, theirs: Any) -> list[tuple[str, Any, Any]]:
    if isinstance(ours, dict) and isinstance(theirs, dict):
        return [
            difference
            for key in sorted({*ours, *theirs})
            for difference in _differences(
                f"{prefix}.{key}" if prefix else key, ours.get(key, "absent"), theirs.get(key, "absent")
            )
        ]
    if isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs) and len(str(ours)) > _BRIEF:
        # Of a long list the first entry that differs says enough.
        entries = enumerate(zip(ours, theirs, strict=True))
        return next((found for i, two in entries if (found := _differences(f"{prefix}[{i}]", *two))), [])
    return [] if ours == theirs else [(prefix, ours, theirs)]


def _brief(value: Any) -> str:
    text = str(value)
    return text if len(text) <= _BRIEF else f"{text[: _BRIEF - 20]}... ({len(text):,} characters)"
