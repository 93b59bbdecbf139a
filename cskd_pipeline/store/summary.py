"""What a store is and how complete it is, from its attributes, commit files and file sizes alone."""

from __future__ import annotations

import dataclasses
from typing import Any

from cskd_pipeline.store.commit import Fidelity, mean_fidelity
from cskd_pipeline.store.reader import StoreReader


@dataclasses.dataclass(frozen=True, slots=True)
class SeedStatus:
    """How much of a seed is committed.

    Attributes:
        seed: its number.
        blocks: committed blocks.
        crops: crops in them.
        bytes: stored bytes by field, the checksums of crops and the spill among them.
        fidelity: encoding -> "crops" measured while it was made, and the means over them (see `Commit`).
    """

    seed: int
    blocks: int
    crops: int
    bytes: dict[str, int]
    fidelity: Fidelity


@dataclasses.dataclass(frozen=True, slots=True)
class StoreSummary:
    """What `inspect` shows.

    Attributes:
        path: the store.
        header: its attributes.
        blocks: blocks of a complete seed.
        seeds: the seeds of which something is committed.
        writers: distinct sets of library versions that wrote blocks.
    """

    path: str
    header: dict[str, Any]
    blocks: int
    seeds: list[SeedStatus]
    writers: list[dict[str, str]]

    @property
    def complete(self) -> list[int]:
        """Seeds a student may train on."""
        return [seed.seed for seed in self.seeds if seed.blocks == self.blocks]

    @property
    def crops(self) -> int:
        """All committed crops."""
        return sum(seed.crops for seed in self.seeds)

    @property
    def bytes_per_crop(self) -> dict[str, float]:
        """Stored (compressed) bytes by field, averaged over all committed crops; "total" sums them."""
        fields = sorted({name for seed in self.seeds for name in seed.bytes})
        share = {name: sum(seed.bytes.get(name, 0) for seed in self.seeds) / max(1, self.crops) for name in fields}
        return {**share, "total": sum(share.values())}

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            **dataclasses.asdict(self),
            "complete_seeds": self.complete,
            "crops": self.crops,
            "bytes_per_crop": {name: round(value, 2) for name, value in self.bytes_per_crop.items()},
        }


def summarise(store: StoreReader) -> StoreSummary:
    """The summary of a store, reading commit files only.

    Raises:
        DataError: a commit file cannot be read.
    """
    seeds, writers = [], []
    for seed in store.seeds():
        sizes: dict[str, int] = {}
        crops, fidelities = 0, []
        blocks = store.committed(seed)
        for block in blocks:
            commit = store.commit(seed, block)
            crops += commit.rows[1] - commit.rows[0]
            for name, facts in commit.files.items():
                field = name.split("/", 1)[0]
                sizes[field] = sizes.get(field, 0) + int(facts["bytes"])
            fidelities.append(commit.fidelity)
            if commit.versions not in writers:
                writers.append(commit.versions)
        seeds.append(SeedStatus(seed, len(blocks), crops, sizes, mean_fidelity(fidelities)))
    return StoreSummary(str(store.path), store.header.to_json(), store.header.blocks, seeds, writers)
