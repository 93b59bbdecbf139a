"""What a store holds and how complete it is, from its attributes, commit files and file sizes alone."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from typing import Any

from cskd_pipeline.errors import DataError
from cskd_pipeline.record import digest_json
from cskd_pipeline.store.commit import Commit, Fidelity, mean_fidelity
from cskd_pipeline.store.reader import StoreReader
from cskd_pipeline.store.teacher_check import TeacherCheck, read_teacher_check


@dataclasses.dataclass(frozen=True, slots=True)
class SeedStatus:
    """How much of a seed is committed: blocks, and crops in them.

    Attributes:
        bytes: stored bytes by field, including crop checksums and spills.
        fidelity: encoding -> "crops" measured while the seed was made, and means over them (see `Commit`).
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
        header: the store's attributes.
        blocks: blocks of a complete seed.
        seeds: all that have a folder.
        writers: distinct sets of library versions that wrote blocks.
        digest: 32 hex digits over the attributes and the checksums of all committed files: equal for stores with the
            same labels of the same crops, however they were made.
        unreadable: one error for each commit file that could not be read; its block is not counted.
        teacher_check: how right the teacher was when the labels were made (see `TeacherCheck`), if that was looked at.
    """

    path: str
    header: dict[str, Any]
    blocks: int
    seeds: list[SeedStatus]
    writers: list[dict[str, str]]
    digest: str
    unreadable: list[str]
    teacher_check: TeacherCheck | None = None

    @property
    def complete(self) -> list[int]:
        """Seeds a student may train on."""
        return [seed.seed for seed in self.seeds if seed.blocks == self.blocks]

    @property
    def crops(self) -> int:
        """Number of committed crops."""
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
    """The summary of a store, reading commit files only."""
    seeds, writers = [], []
    unreadable: list[str] = []
    content = hashlib.blake2b(store.digest.encode(), digest_size=16)
    for seed, blocks in store.begun().items():
        sizes: dict[str, int] = {}
        crops, fidelities = 0, []
        for commit in store.each(functools.partial(_commit, store, seed), blocks):
            if isinstance(commit, str):
                unreadable.append(commit)
                continue
            crops += commit.rows[1] - commit.rows[0]
            for name, facts in commit.files.items():
                field = name.split("/", 1)[0]
                sizes[field] = sizes.get(field, 0) + int(facts["bytes"])
            fidelities.append(commit.fidelity)
            if commit.versions not in writers:
                writers.append(commit.versions)
            content.update(digest_json([seed, commit.block, commit.files]).encode())
        seeds.append(SeedStatus(seed, len(fidelities), crops, sizes, mean_fidelity(fidelities)))
    return StoreSummary(
        store.path,
        store.header.to_json(),
        store.header.blocks,
        seeds,
        writers,
        content.hexdigest(),
        unreadable,
        read_teacher_check(store.storage),
    )


def _commit(store: StoreReader, seed: int, block: int) -> Commit | str:
    try:
        return store.commit(seed, block)
    except DataError as error:
        return str(error)
