"""Hard targets by their definition: every ratio evaluated for all classes. The obvious, slow second implementation."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cskd_pipeline.labels.hard.records import HardRecords
from cskd_pipeline.ratio import RATIO_STEPS

_CELLS = 1 << 22


def winners_at(dense_NC: Tensor, global_NC: Tensor, steps: Tensor) -> Tensor:
    """int64 [N, len(steps)]: argmax over all classes of r*d + (1-r)*g in NumPy's fp32, the first of equal ones."""
    d, g = dense_NC.numpy(), global_NC.numpy()
    found = np.empty((len(d), len(steps)), np.int64)
    portion = max(1, _CELLS // d.size)
    for first in range(0, len(steps), portion):
        r = (steps[first : first + portion].numpy() / RATIO_STEPS).astype(np.float32)[None, :, None]
        found[:, first : first + portion] = (r * d[:, None] + (np.float32(1) - r) * g[:, None]).argmax(axis=2)
    return torch.from_numpy(found)


def records_by_hand(dense_BPC: Tensor, global_BC: Tensor) -> HardRecords:
    """The records of these logits."""
    every = torch.arange(RATIO_STEPS + 1)
    sizes, palettes, counts, codes, starts = [], [], [], [], []
    for dense_PC, global_C in zip(dense_BPC, global_BC, strict=True):
        winner_PK = winners_at(dense_PC, global_C.expand_as(dense_PC), every).numpy()
        palette = [int(winner_PK[0, 0])]
        for winner_K in winner_PK:
            changes = np.flatnonzero(np.diff(winner_K))
            counts.append(len(changes))
            starts += changes.tolist()
            for class_ in winner_K[changes + 1].tolist():
                if class_ not in palette:
                    palette.append(class_)
                codes.append(palette.index(class_))
        palettes += palette
        sizes.append(len(palette))

    def numbers(values: list[int]) -> npt.NDArray[np.uint16]:
        return np.array(values, np.uint16)

    count_BP = numbers(counts).reshape(len(dense_BPC), -1)
    return HardRecords(np.array(sizes), numbers(palettes), count_BP, numbers(codes), numbers(starts))
