"""What a training step consumes and what a student gives back."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from cskd_pipeline.records.targets import Targets


@dataclasses.dataclass(frozen=True, slots=True)
class MixedLabels:
    """The true labels of a batch of mixed crops: `weight` of the first class, the rest of the second.

    Attributes:
        first_B: int64, the crop's own class.
        second_B: int64, its mix partner's class (the same class where nothing was mixed).
        weight_B: fp32 in [0, 1], share of the first class.
        smoothing: label smoothing epsilon of the recipe.
    """

    first_B: Tensor
    second_B: Tensor
    weight_B: Tensor
    smoothing: float = 0.0

    def probabilities_BC(self, classes: int) -> Tensor:
        """fp32 [B, classes]: each one-hot label smoothed to 1 - eps + eps/C and eps/C, then mixed."""
        off = self.smoothing / classes
        on = 1.0 - self.smoothing + off
        weight_B1 = self.weight_B[:, None]
        out = torch.full((len(self.first_B), classes), off, device=self.weight_B.device)
        out.scatter_add_(1, self.first_B[:, None], weight_B1 * (on - off))
        out.scatter_add_(1, self.second_B[:, None], (1 - weight_B1) * (on - off))
        return out


@dataclasses.dataclass(frozen=True, slots=True)
class TrainBatch:
    """One micro-batch of one rank, on the device of the model.

    Attributes:
        pixels_B3SS: fp32, finished (erased, mixed, normalised for the student).
        labels: the true labels, mixed as the pixels are.
        targets: the teacher's targets, or None where the objective needs none.
    """

    pixels_B3SS: Tensor
    labels: MixedLabels
    targets: Targets | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class StudentOutput:
    """Logits of a student's heads; a head that the student lacks, or was not asked for, is None.

    Attributes:
        cls_BC: z_cls, the class token through `head`.
        dist_BC: z_dist, the distillation token through `head_dist`.
        dense_BCHW: z_patch, patch tokens pooled to the teacher's grid, through the same `head_dist`.
    """

    cls_BC: Tensor
    dist_BC: Tensor | None = None
    dense_BCHW: Tensor | None = None
