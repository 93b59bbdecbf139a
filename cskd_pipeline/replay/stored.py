"""Targets from a store: a seed in use is decoded once on a node, ahead of its use, and gathered from by batch."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from cskd_pipeline.batch import Targets
from cskd_pipeline.crops.batch import CropBatch
from cskd_pipeline.errors import MismatchError
from cskd_pipeline.replay.canary import Canary
from cskd_pipeline.replay.decode_program import CROP_CRC, LabelReader, SeedTable
from cskd_pipeline.replay.tables import LabelMemory, label_tables

SOURCES = {"hard": ("hard", "full"), "soft": ("full", "soft")}
"""The encodings that serve a kind of targets, the best first: the exact one, then the smaller one."""


class StoredTargets:
    """The targets of a store's complete seeds; checks the pixels they belong to as it goes."""

    def __init__(
        self,
        store: LabelReader,
        *,
        needs: frozenset[str],
        canary: Canary,
        memory: LabelMemory = "tables",
        scratch: Path | None = None,
    ) -> None:
        """Serve from `store`.

        Args:
            store: opened for reading.
            needs: kinds of targets: "hard", "soft", both or none.
            canary: compares crops with the store's checksums.
            memory: "tables" decodes whole seeds ahead; "low" reads what each batch needs, slowly.
            scratch: folder for tables that processes share; None to find one.

        Raises:
            MismatchError: the store's encodings do not hold what is needed.
        """
        self._store, self._canary = store, canary
        self._names = _serving(store, needs)
        self._tables = label_tables(store, [*self._names, CROP_CRC.name], memory=memory, scratch=scratch)
        self._ratio_steps = -1
        self._first = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release memory, files and the decoding process."""
        self._tables.close()

    @property
    def grid(self) -> tuple[int, int]:
        """(H, W)."""
        return self._store.header.grid

    def prepare(self, seeds: list[int], *, ratio_steps: int, upcoming: tuple[list[int], int] | None = None) -> None:
        """Have these seeds decoded for an epoch, forget the others, and have `upcoming` decoded in the background.

        Raises:
            DataError: a block is missing or damaged.
            RetryError: there is no room for the tables, or their decoding was killed.
        """
        self._tables.prepare(self._of_epoch(seeds, ratio_steps), self._of_epoch(*upcoming) if upcoming else [])
        self._ratio_steps = ratio_steps
        self._first = True

    def targets(self, batch: CropBatch, *, ratio_steps: int, device: torch.device) -> Targets | None:
        """The targets of the batch's crops on `device`; None where no kind is needed.

        Raises:
            DataError: a checked crop is not the one that the store was made of.
        """
        assert ratio_steps == self._ratio_steps, "prepare comes before targets"
        seeds_B = batch.draws_B["seed"].astype(np.int64)
        samples_B = batch.draws_B["sample"].astype(np.int64)
        self._canary.check(batch, self._entries(CROP_CRC.name, seeds_B, samples_B), first=self._first)
        self._first = False
        parts = [
            self._store.encodings[name].targets(
                self._entries(name, seeds_B, samples_B), grid=self.grid, ratio_steps=ratio_steps, device=device
            )
            for name in self._names
        ]
        return _merged(parts) if parts else None

    def _of_epoch(self, seeds: list[int], ratio_steps: int) -> list[SeedTable]:
        return [self._table(seed, name, ratio_steps) for seed in seeds for name in (*self._names, CROP_CRC.name)]

    def _table(self, seed: int, name: str, ratio_steps: int) -> SeedTable:
        follows = name != CROP_CRC.name and self._store.encodings[name].follows_ratio
        return SeedTable(seed, name, ratio_steps if follows else 0)

    def _entries(self, name: str, seeds_B: NDArray[np.int64], samples_B: NDArray[np.int64]) -> NDArray[Any]:
        if (seeds_B == seeds_B[0]).all():
            return self._tables.entries(self._table(int(seeds_B[0]), name, self._ratio_steps), samples_B)
        order = np.argsort(seeds_B, kind="stable")
        parts = []
        for rows in np.split(order, np.flatnonzero(np.diff(seeds_B[order])) + 1):
            table = self._table(int(seeds_B[rows[0]]), name, self._ratio_steps)
            parts.append(self._tables.entries(table, samples_B[rows]))
        entries_B = np.empty((len(seeds_B), *parts[0].shape[1:]), parts[0].dtype)
        entries_B[order] = np.concatenate(parts)
        return entries_B


def _serving(store: LabelReader, needs: frozenset[str]) -> list[str]:
    """The encodings to decode, each once, in a fixed order."""
    chosen = {kind: next((name for name in SOURCES[kind] if name in store.encodings), None) for kind in sorted(needs)}
    missing = [kind for kind, name in chosen.items() if name is None]
    if missing:
        raise MismatchError(
            f"{store.path} holds no {' and no '.join(missing)} targets (it has {', '.join(store.encodings)}), the "
            "objective needs them; choose another objective, or make a new store with "
            f"--targets {','.join(sorted(needs))}"
        )
    return sorted({name for name in chosen.values() if name is not None})


def _merged(parts: list[Targets]) -> Targets:
    """All fields that one of the parts has; each comes from one encoding."""
    merged = parts[0]
    for part in parts[1:]:
        merged = merged._replace(**{name: value for name, value in part._asdict().items() if value is not None})
    return merged
