"""The commit file of one (seed, block): written last, it makes the block exist."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from typing import Any

from google_crc32c import value as crc32c

from cskd_pipeline.errors import UsageError
from cskd_pipeline.record import Record, digest_json
from cskd_pipeline.storage import Storage
from cskd_pipeline.store import layout
from cskd_pipeline.store.metadata import parse_json

_MOST = 1e30
"""Far above any measured mean; NaN is not below it either."""

Fidelity = dict[str, dict[str, float]]
"""Encoding -> "crops" measured and the means over them."""


@dataclasses.dataclass(frozen=True, slots=True)
class Commit(Record):
    """The content of a commit file.

    Attributes:
        store: digest of the store's root attributes, so that a block of another store does not count.
        seed, block: which block.
        rows: first sample and one past the last.
        files: path below the seed's folder -> {"crc32c": eight hex digits, "bytes": size} for every shard.
        versions: library versions of the writer.
        fidelity: encoding -> how close decoding comes to the teacher's logits on a sample of the block: "crops" in
            the sample, and means over them.
    """

    store: str
    seed: int
    block: int
    rows: tuple[int, int]
    files: dict[str, dict[str, Any]]
    versions: dict[str, str]
    fidelity: Fidelity

    def __post_init__(self) -> None:
        whole = isinstance(self.rows, tuple) and len(self.rows) == 2 and all(isinstance(row, int) for row in self.rows)
        files = isinstance(self.files, dict) and all(
            isinstance(facts, dict) and isinstance(facts.get("bytes"), int) and isinstance(facts.get("crc32c"), str)
            for facts in self.files.values()
        )
        fidelity = isinstance(self.fidelity, dict) and all(
            isinstance(values, dict)
            and all(isinstance(value, int | float) and abs(value) < _MOST for value in values.values())
            and 1 <= values.get("crops", 0) <= layout.MAX_BLOCK
            for values in self.fidelity.values()
        )
        if not (whole and files and fidelity and isinstance(self.versions, dict)):
            raise UsageError("its rows, files, versions or fidelity are not of the form that docs/format.md describes")

    def text(self) -> bytes:
        """The content of the commit file."""
        return (json.dumps({**self.to_json(), "digest": self.digest()}, indent=1, sort_keys=True) + "\n").encode()

    @classmethod
    def parse(cls, content: bytes) -> Commit:
        """The commit in this file.

        Raises:
            ValueError: it is not a valid commit file.
        """
        try:
            values = parse_json(content)
            digest = values.pop("digest")
            commit = cls.from_json(values)
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError(str(error)) from error
        if digest != digest_json(values):
            raise ValueError("it was changed after it was written")
        return commit


def committed_blocks(storage: Storage, seed: int, *, blocks: int) -> list[int]:
    """Which of a seed's `blocks` blocks have a commit file, ascending."""
    files = storage.files(f"{layout.seed_name(seed)}/{layout.COMMITS}")
    found = [layout.block_of(file.name.rpartition("/")[2]) for file in files]
    return sorted(block for block in found if block is not None and block < blocks)


def file_facts(content: bytes) -> dict[str, Any]:
    """crc32c and size of a file."""
    return {"crc32c": f"{crc32c(content):08x}", "bytes": len(content)}


def mean_fidelity(parts: Iterable[Fidelity]) -> Fidelity:
    """The mean of several fidelities, weighted by their crops."""
    total: Fidelity = {}
    for part in parts:
        for name, values in part.items():
            sums = total.setdefault(name, {"crops": 0})
            sums["crops"] += values["crops"]
            for key, value in values.items():
                if key != "crops":
                    sums[key] = sums.get(key, 0.0) + value * values["crops"]
    return {
        name: {key: value if key == "crops" else value / sums["crops"] for key, value in sums.items()}
        for name, sums in total.items()
    }
