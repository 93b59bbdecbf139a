"""Targets from a store: a seed in use is decoded once on a node, ahead of its use, and gathered from by batch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from cskd_pipeline.batch import Targets
from cskd_pipeline.crops.batch import CropBatch
from cskd_pipeline.crops.recipe import CropRecipe
from cskd_pipeline.data import SampleIndex
from cskd_pipeline.errors import MismatchError, UsageError
from cskd_pipeline.ratio import require_ratio_steps
from cskd_pipeline.replay.canary import Canary
from cskd_pipeline.replay.decoding import CROP_CRC, SeedTable, table_spec
from cskd_pipeline.replay.source import TargetProvider
from cskd_pipeline.replay.tables import SeedTables
from cskd_pipeline.seeds import format_seeds
from cskd_pipeline.store import StoreReader

SOURCES = {"hard": ("hard", "full"), "soft": ("full", "soft"), "truth": ("full", "truth")} | {
    name: (name,) for name in ("features.pooled", "features.tokens")
}
"""The encodings that serve a kind of targets, the best first: the exact one, then the smaller one."""


class StoredTargets:
    """The targets of a store's complete seeds; checks the pixels they belong to as it goes."""

    def __init__(
        self, store: StoreReader, *, needs: frozenset[str], canary: Canary, scratch: Path | None = None
    ) -> None:
        """Serve from `store`.

        Args:
            store: opened for reading.
            needs: kinds of targets, of those in `SOURCES`.
            canary: compares crops with the store's checksums.
            scratch: folder for the tables that the ranks of a node share; None to find one.

        Raises:
            MismatchError: the store's encodings do not hold what is needed.
        """
        self._store, self._canary = store, canary
        self._names = _serving(store, needs)
        self._tables = SeedTables(store, [*self._names, CROP_CRC.name], scratch=scratch)
        self._ratio_steps: int | None = None
        self._first = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Release memory, files and the decoding process."""
        self._tables.close()

    @property
    def grid(self) -> tuple[int, int]:
        """(H, W)."""
        return self._store.header.grid

    def require(self, index: SampleIndex, recipe: CropRecipe, seeds: Sequence[int]) -> None:
        """Raise MismatchError unless the store is of these images and this recipe, with these seeds complete."""
        header = self._store.header
        stored = {name: header.data[name] for name in ("samples", "classes", "digest")}
        stored |= CropRecipe.from_json(header.recipe).to_json()
        found = {"samples": len(index), "classes": len(index.classes), "digest": index.digest}
        found |= recipe.to_json()
        wrong = [
            f"{name} is {stored[name]} there, {found[name]} here" for name in stored if stored[name] != found[name]
        ]
        if wrong:
            raise MismatchError(
                f"the labels of {self._store.path} belong to other crops: {'; '.join(wrong)}; use the data and the "
                "recipe that the store names"
            )
        missing = sorted({*seeds} - {*self._store.complete_seeds()})
        if missing:
            raise MismatchError(
                f"seeds {format_seeds(missing)} are not complete in {self._store.path}; make them with "
                "`cskd-pipeline precompute`, or use others"
            )

    def prepare(self, seeds: list[int], *, ratio_steps: int, upcoming: tuple[list[int], int] | None = None) -> None:
        """Have these seeds decoded for an epoch, forget the others, and have `upcoming` decoded in the background.

        All ranks of a run call it at the same time.

        Raises:
            DataError: a block is missing or damaged.
            RetryError: there is no room for the tables, or their decoding was killed.
            UsageError: a ratio is no whole number from 0 to 65536.
        """
        require_ratio_steps(ratio_steps, of="the epoch")
        self._ratio_steps = None
        self._tables.prepare(self._of_epoch(seeds, ratio_steps), self._of_epoch(*upcoming) if upcoming else [])
        self._ratio_steps = ratio_steps
        self._first = True

    def targets(self, batch: CropBatch, *, device: torch.device) -> Targets | None:
        """The targets of the batch's crops on `device`; None where no kind is needed.

        Raises:
            DataError: a checked crop is not the one that the store was made of.
            UsageError: the batch shows a seed that was not prepared.
        """
        if self._ratio_steps is None:
            raise UsageError("no epoch is prepared; call prepare with its seeds before asking for targets")
        ratio_steps = self._ratio_steps
        seeds_B = batch.draws_B["seed"].astype(np.int64)
        samples_B = batch.draws_B["sample"].astype(np.int64)

        def entries(name: str) -> NDArray[Any]:
            return self._entries(name, seeds_B, samples_B, ratio_steps)

        self._canary.check(batch, entries(CROP_CRC.name), first=self._first)
        self._first = False
        encodings = self._store.encodings
        parts = [
            encodings[name].targets(entries(name), grid=self.grid, ratio_steps=ratio_steps, device=device)
            for name in self._names
        ]
        return _merged(parts) if parts else None

    def _of_epoch(self, seeds: list[int], ratio_steps: int) -> list[SeedTable]:
        return [self._table(seed, name, ratio_steps) for seed in seeds for name in (*self._names, CROP_CRC.name)]

    def _table(self, seed: int, name: str, ratio_steps: int) -> SeedTable:
        follows = name != CROP_CRC.name and self._store.encodings[name].follows_ratio
        return SeedTable(seed, name, ratio_steps if follows else 0)

    def _entries(
        self, name: str, seeds_B: NDArray[np.int64], samples_B: NDArray[np.int64], ratio_steps: int
    ) -> NDArray[Any]:
        seeds = np.unique(seeds_B).tolist()
        if len(seeds) == 1:
            return self._tables.entries(self._table(seeds[0], name, ratio_steps), samples_B)
        spec = table_spec(self._store, name)
        entries_B: NDArray[Any] = np.empty((len(seeds_B), *spec.row_shape), spec.dtype)
        for seed in seeds:
            rows = np.flatnonzero(seeds_B == seed)
            entries_B[rows] = self._tables.entries(self._table(seed, name, ratio_steps), samples_B[rows])
        return entries_B


class JoinedTargets:
    """The targets of several providers for the same crops: of other kinds, or of two teachers."""

    def __init__(self, parts: Sequence[TargetProvider], *, teachers: int = 1) -> None:
        """Merge what these give, or with two teachers let the second be `Targets.second`."""
        self._parts, self._teachers = parts, teachers

    def require(self, index: SampleIndex, recipe: CropRecipe, seeds: Sequence[int]) -> None:
        """Raise MismatchError unless every part has targets for these crops."""
        for part in self._parts:
            part.require(index, recipe, seeds)

    def prepare(self, seeds: list[int], *, ratio_steps: int, upcoming: tuple[list[int], int] | None = None) -> None:
        """See `StoredTargets`."""
        for part in self._parts:
            part.prepare(seeds, ratio_steps=ratio_steps, upcoming=upcoming)

    def targets(self, batch: CropBatch, *, device: torch.device) -> Targets | None:
        """What all parts know of the batch's crops."""
        found = [targets for part in self._parts if (targets := part.targets(batch, device=device)) is not None]
        return found[0]._replace(second=found[1]) if self._teachers == 2 else _merged(found)

    def close(self) -> None:
        """Release memory, files and the decoding processes."""
        for part in self._parts:
            part.close()


def stored_targets(
    stores: Sequence[StoreReader],
    *,
    needs: frozenset[str],
    canary: Canary,
    scratch: Path | None = None,
    teachers: int = 1,
) -> StoredTargets | JoinedTargets:
    """What is needed, each kind from the first of these stores that holds it; arguments as of `StoredTargets`.

    With two `teachers`, everything from both of two stores.

    Raises:
        UsageError: there is not one store for each of two teachers.
        MismatchError: none of the stores holds what is needed, or those that do are of different teachers.
    """
    if teachers == 2:
        if len(stores) != 2:
            raise UsageError(
                f"the objective learns from two teachers, found {len(stores)} store{'s' * (len(stores) != 1)}; give "
                "one of each with --labels A --labels B"
            )
        pair = [StoredTargets(store, needs=needs, canary=canary, scratch=scratch) for store in stores]
        return JoinedTargets(pair, teachers=2)
    by_store = _by_store(stores, needs)
    parts = [
        StoredTargets(stores[i], needs=frozenset(kinds), canary=canary, scratch=scratch)
        for i, kinds in (by_store or {0: set[str]()}).items()
    ]
    return parts[0] if len(parts) == 1 else JoinedTargets(parts)


def require_stored(stores: Sequence[StoreReader], needs: frozenset[str], *, teachers: int = 1) -> None:
    """Raise what `stored_targets` does where one teacher's labels lack what is needed."""
    if teachers == 1:
        for i, kinds in _by_store(stores, needs).items():
            _serving(stores[i], frozenset(kinds))


def _by_store(stores: Sequence[StoreReader], needs: frozenset[str]) -> dict[int, set[str]]:
    """Which kinds come from which store, all of one teacher."""
    by_store: dict[int, set[str]] = {}
    for kind in sorted(needs):
        able = (i for i, store in enumerate(stores) if any(name in store.encodings for name in SOURCES[kind]))
        by_store.setdefault(next(able, 0), set()).add(kind)
    used = [stores[i] for i in by_store]
    for other in used[1:]:
        for name, value in other.header.teacher.items():
            if used[0].header.teacher.get(name) != value:
                raise MismatchError(
                    f"the labels of {used[0].path} and {other.path} are of different teachers: {name} is "
                    f"{used[0].header.teacher.get(name)} there, {value} here; use stores of one teacher"
                )
    return by_store


def _serving(store: StoreReader, needs: frozenset[str]) -> list[str]:
    """The encodings to decode, each once, in a fixed order."""
    chosen = {kind: next((name for name in SOURCES[kind] if name in store.encodings), None) for kind in sorted(needs)}
    missing = [kind for kind, name in chosen.items() if name is None]
    if missing:
        raise MismatchError(
            f"{store.path} holds no {' and no '.join(missing)} targets (it has {', '.join(store.encodings)}), the "
            f"objective needs them; make them with `cskd-pipeline add-targets {store.path} --targets "
            f"{','.join(missing)} --out NEW`, and give both stores with --labels"
        )
    return sorted({name for name in chosen.values() if name is not None})


def _merged(parts: list[Targets]) -> Targets:
    """All fields that one of the parts has; each comes from one encoding."""
    merged = parts[0]
    for part in parts[1:]:
        merged = merged._replace(**{name: value for name, value in part._asdict().items() if value is not None})
    return merged
