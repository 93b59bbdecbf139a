"""A batch of rendered crops, with all that is needed to finish, label and check it."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cskd_pipeline.batch import MixedLabels
from cskd_pipeline.crops.batched_ops import augment
from cskd_pipeline.crops.checksum import crop_crc
from cskd_pipeline.crops.draws import Draws
from cskd_pipeline.crops.finish import Channels, finish
from cskd_pipeline.crops.labels import mixed_labels
from cskd_pipeline.crops.recipe import CropRecipe
from cskd_pipeline.errors import UsageError
from cskd_pipeline.runtime.memory import ReusedMemory


@dataclasses.dataclass(frozen=True, slots=True)
class CropBatch:
    """Crops as workers make them. Every crop's mix partner is in the same batch.

    Attributes:
        crops_B3SS: uint8, rendered pixels.
        augmented: whether RandAugment has been applied; otherwise `on` applies it.
        draws_B: `CROP_DRAW`, the parameters, including seed and sample.
        partner_rows_B: int64, the row of each crop's partner (its own where it is not mixed).
        labels_B: int64, the crops' own classes.
        crc_B: uint32, crc32c of each crop's augmented pixels; None if not computed yet, see `checksums`.
        memory: holds the finished pixels on a CPU.
    """

    crops_B3SS: Tensor
    draws_B: Draws
    partner_rows_B: NDArray[np.int64]
    labels_B: NDArray[np.int64]
    crc_B: NDArray[np.uint32] | None
    augmented: bool = True
    memory: ReusedMemory = dataclasses.field(default_factory=ReusedMemory, repr=False)

    def __len__(self) -> int:
        return len(self.crops_B3SS)

    def on(self, device: torch.device, recipe: CropRecipe) -> CropBatch:
        """The batch with its pixels on `device`, augmented there unless they already are."""
        crops_B3SS = self.crops_B3SS.to(device, non_blocking=True)
        if not self.augmented:
            crops_B3SS = augment(crops_B3SS, self.draws_B, fill=recipe.fill)
        return dataclasses.replace(self, crops_B3SS=crops_B3SS, augmented=True)

    def pixels(self, recipe: CropRecipe, *, mean: Channels, std: Channels, device: torch.device) -> Tensor:
        """fp32 [B, 3, S, S] on `device`: erased, mixed, and normalised for a model with this mean and std."""
        crops = self.on(device, recipe).crops_B3SS
        return finish(crops, self.draws_B, self.partner_rows_B, recipe, mean=mean, std=std, memory=self.memory)

    def checksums(self, rows_n: NDArray[np.int64] | None = None) -> NDArray[np.uint32]:
        """uint32 [n], crc32c of the augmented pixels of these crops, all of them by default.

        Raises:
            UsageError: the crops are not augmented yet.
        """
        if rows_n is None:
            rows_n = np.arange(len(self))
        if self.crc_B is not None:
            return self.crc_B[rows_n]
        if not self.augmented:
            raise UsageError("these crops are not augmented yet; take the checksums of what `on(device, recipe)` gives")
        if not len(rows_n):
            return np.empty(0, np.uint32)
        crops_n3SS = self.crops_B3SS[torch.from_numpy(rows_n).to(self.crops_B3SS.device)].cpu().numpy()
        return np.array([crop_crc(crop) for crop in crops_n3SS], np.uint32)

    def labels(self, recipe: CropRecipe, *, device: torch.device) -> MixedLabels:
        """The labels, mixed as the pixels are."""
        return mixed_labels(self.labels_B, self.partner_rows_B, self.draws_B, recipe, device=device)
