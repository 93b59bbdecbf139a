"""Targets from a store: a seed in use is decoded once and gathered from by batch."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cskd_pipeline.crops.batch import CropBatch
from cskd_pipeline.errors import MismatchError
from cskd_pipeline.records.targets import Targets
from cskd_pipeline.replay.canary import Canary
from cskd_pipeline.store import StoreReader


@dataclasses.dataclass(frozen=True, slots=True)
class _SeedTable:
    """A seed at one ratio: targets and crop checksums of all samples, on the CPU."""

    targets: Targets
    crop_crc_S: NDArray[np.uint32]


class StoredTargets:
    """The targets of a store's complete seeds; checks the pixels they belong to as it goes."""

    def __init__(self, store: StoreReader, *, needs: frozenset[str], canary: Canary) -> None:
        """Serve from `store`.

        Raises:
            MismatchError: the store's encoding does not hold what is needed.
        """
        missing = needs - store.encoding.gives
        if missing:
            raise MismatchError(
                f"{store.path} holds {', '.join(sorted(store.encoding.gives))} targets (encoding "
                f"{store.encoding.name}), the objective needs {', '.join(sorted(missing))} ones; "
                "choose another objective, or precompute with --encoding full"
            )
        self._store, self._canary = store, canary
        self._tables: dict[int, _SeedTable] = {}
        self._ratio_steps = -1
        self._first = False

    @property
    def grid(self) -> tuple[int, int]:
        """(H, W)."""
        return self._store.header.grid

    def prepare(self, seeds: list[int], *, ratio_steps: int) -> None:
        """Decode these seeds for an epoch and forget the others.

        Raises:
            DataError: a block is missing or damaged.
        """
        keep = self._tables if ratio_steps == self._ratio_steps or not self._depends_on_ratio() else {}
        self._tables = {seed: keep[seed] if seed in keep else self._decode(seed, ratio_steps) for seed in seeds}
        self._ratio_steps = ratio_steps
        self._first = True

    def targets(self, batch: CropBatch, *, ratio_steps: int, device: torch.device) -> Targets:
        """The targets of the batch's crops on `device`.

        Raises:
            DataError: a checked crop is not the one that the store was made of.
        """
        assert ratio_steps == self._ratio_steps, "prepare comes before targets"
        seeds_B, samples_B = batch.draws_B["seed"], batch.draws_B["sample"]
        crc_B = np.empty(len(batch), np.uint32)
        parts: list[tuple[NDArray[np.int64], Targets]] = []
        for seed in np.unique(seeds_B).tolist():
            rows = np.flatnonzero(seeds_B == seed)
            table = self._tables[seed]
            crc_B[rows] = table.crop_crc_S[samples_B[rows]]
            parts.append((rows, _map(table.targets, torch.from_numpy(samples_B[rows].copy()))))
        self._canary.check(batch, crc_B, first=self._first)
        self._first = False
        back = torch.from_numpy(np.argsort(np.concatenate([rows for rows, _ in parts])))
        joined = _join([targets for _, targets in parts], ratio_steps)
        return _map(joined, back, device)

    def _depends_on_ratio(self) -> bool:
        return "soft" not in self._store.encoding.gives

    def _decode(self, seed: int, ratio_steps: int) -> _SeedTable:
        header = self._store.header
        parts, crcs = [], []
        for block in range(header.blocks):
            encoded, crc = self._store.read_block(seed, block)
            decoded = self._store.encoding.decode(encoded, grid=header.grid, ratio_steps=ratio_steps)
            parts.append(_compact(decoded))
            crcs.append(crc)
        return _SeedTable(_join(parts, ratio_steps), np.concatenate(crcs))


_FIELDS = [field.name for field in dataclasses.fields(Targets) if field.name != "ratio_steps"]


def _compact(targets: Targets) -> Targets:
    """Class numbers in 16 bits: what a table of all samples takes."""
    small = {name: getattr(targets, name) for name in _FIELDS}
    return Targets(
        targets.ratio_steps,
        **{k: v.to(torch.uint16) if v is not None and v.dtype == torch.int64 else v for k, v in small.items()},
    )


def _join(parts: list[Targets], ratio_steps: int) -> Targets:
    def column(name: str) -> Tensor | None:
        values = [getattr(part, name) for part in parts]
        return None if values[0] is None else torch.cat(values)

    return Targets(ratio_steps, **{name: column(name) for name in _FIELDS})


def _map(targets: Targets, rows: Tensor, device: torch.device | None = None) -> Targets:
    """These rows; with a device, there and with class numbers as int64."""

    def column(name: str) -> Tensor | None:
        values: Tensor | None = getattr(targets, name)
        if values is None:
            return None
        # torch cannot index uint16 by tensors: the same bits as int16 can.
        short = values.dtype == torch.uint16
        values = values.view(torch.int16)[rows].view(torch.uint16) if short else values[rows]
        if device is None:
            return values
        return (values.to(torch.int64) if short else values).to(device)

    return Targets(targets.ratio_steps, **{name: column(name) for name in _FIELDS})
