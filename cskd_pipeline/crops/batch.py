"""A batch of rendered crops with everything that finishing it, labelling it and checking it takes."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cskd_pipeline.crops.draws import Draws
from cskd_pipeline.crops.finish import Channels, finish
from cskd_pipeline.crops.labels import mixed_labels
from cskd_pipeline.crops.recipe import CropRecipe
from cskd_pipeline.records.batch import MixedLabels
from cskd_pipeline.records.memory import ReusedMemory


@dataclasses.dataclass(frozen=True, slots=True)
class CropBatch:
    """Crops as workers make them; every crop's mix partner is in the batch.

    Attributes:
        crops_B3SS: uint8, rendered pixels.
        draws_B: `CROP_DRAW`, the parameters; seed and sample among them.
        partner_rows_B: int64, the row of each crop's partner (its own where it is not mixed).
        labels_B: int64, the crops' own classes.
        crc_B: uint32, crc32c of each crop's pixels.
        memory: where finished pixels are put on a CPU.
    """

    crops_B3SS: Tensor
    draws_B: Draws
    partner_rows_B: NDArray[np.int64]
    labels_B: NDArray[np.int64]
    crc_B: NDArray[np.uint32]
    memory: ReusedMemory = dataclasses.field(default_factory=ReusedMemory, repr=False)

    def __len__(self) -> int:
        return len(self.crops_B3SS)

    def pixels(self, recipe: CropRecipe, *, mean: Channels, std: Channels, device: torch.device) -> Tensor:
        """fp32 [B, 3, S, S] on `device`: erased, mixed, and normalised for a model with this mean and std."""
        crops = self.crops_B3SS.to(device, non_blocking=True)
        return finish(crops, self.draws_B, self.partner_rows_B, recipe, mean=mean, std=std, memory=self.memory)

    def labels(self, recipe: CropRecipe, *, device: torch.device) -> MixedLabels:
        """The labels, mixed as the pixels are."""
        return mixed_labels(self.labels_B, self.partner_rows_B, self.draws_B, recipe, device=device)
