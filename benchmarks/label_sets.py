"""The logits that formats are compared on, by name, made once and kept in a working folder."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from synthetic_logits import CLASSES, GRID, REGIMES, SyntheticTeacher
from torch import Tensor

SYNTHETIC = tuple(f"synthetic-{CLASSES}-{regime}" for regime in REGIMES)
REAL = ("tiny_imagenet-200", "imagenet_sample-500")
"""Those of `trained_logits`."""
_BATCH = 256


@dataclasses.dataclass(frozen=True, slots=True)
class LabelSet:
    """fp32 logits [N, 1 + P, C], the global ones first, mapped from a file."""

    name: str
    grid: tuple[int, int]
    logits: npt.NDArray[np.float32]

    @property
    def classes(self) -> int:
        return int(self.logits.shape[2])

    def batch(self, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """Dense [n, P, C] and global [n, C] of these crops, in memory."""
        logits = torch.from_numpy(np.array(self.logits[start:stop]))
        return logits[:, 1:].contiguous(), logits[:, 0].contiguous()

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """All crops in order."""
        for start in range(0, len(self.logits), _BATCH):
            yield self.batch(start, start + _BATCH)


def open_set(name: str, *, work: Path, data_root: Path | None, crops: int) -> LabelSet:
    """The first `crops` crops of a set, from `work` if they were made before.

    Real sets need `data_root`, the folder with the images.
    """
    folder = work / name
    path = folder / f"logits-{crops}.npy"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        logits = None
        for rows, part in _make(name, work=folder, data_root=data_root, crops=crops):
            if logits is None:
                shape = (crops, *part.shape[1:])
                logits = np.lib.format.open_memmap(partial, mode="w+", dtype=np.float32, shape=shape)
            logits[rows] = part.numpy()
        assert logits is not None
        logits.flush()
        partial.rename(path)
    return LabelSet(name, (GRID, GRID), np.load(path, mmap_mode="r"))


def _make(
    name: str, *, work: Path, data_root: Path | None, crops: int
) -> Iterator[tuple[npt.NDArray[np.int64], Tensor]]:
    if name in REAL:
        from trained_logits import trained_logits  # the networks behind it take seconds to import

        assert data_root is not None, f"{name} needs its images"
        yield from trained_logits(name, data_root=data_root, work=work, crops=crops)
        return
    teacher = SyntheticTeacher(REGIMES[name.rpartition("-")[2]], seed=0)
    for start in range(0, crops, _BATCH):
        dense_nPC, global_nC = teacher(min(_BATCH, crops - start))
        yield np.arange(start, start + len(dense_nPC)), torch.cat([global_nC[:, None], dense_nPC], 1)
