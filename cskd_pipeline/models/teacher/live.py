"""Targets computed on the fly: the reference that stored targets are compared with, and the baseline in cost."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from cskd_pipeline.batch import Targets, TokenTargets
from cskd_pipeline.crops.batch import CropBatch
from cskd_pipeline.crops.recipe import CropRecipe
from cskd_pipeline.data import SampleIndex
from cskd_pipeline.errors import MismatchError, UsageError
from cskd_pipeline.models.teacher.teacher import Teacher


class LiveTargets:
    """A teacher that answers for every batch. Its logits serve hard and soft objectives alike."""

    def __init__(
        self, teacher: Teacher, recipe: CropRecipe, *, pooled: bool = False, layers: tuple[int, ...] = ()
    ) -> None:
        """Answer with `teacher` about crops of `recipe`; `pooled` and `layers` say with which features."""
        self.teacher, self.recipe, self._pooled, self._layers = teacher, recipe, pooled, layers
        self._ratio_steps: int | None = None

    @property
    def grid(self) -> tuple[int, int]:
        """(H, W)."""
        return self.teacher.grid

    def require(self, index: SampleIndex, recipe: CropRecipe, seeds: Sequence[int]) -> None:
        """Raise MismatchError unless this is the recipe to answer about."""
        if recipe != self.recipe:
            raise MismatchError(
                f"the crops are of {recipe}, the teacher answers about {self.recipe}; give both the same"
            )

    def prepare(self, seeds: list[int], *, ratio_steps: int, upcoming: tuple[list[int], int] | None = None) -> None:
        """Answer for an epoch at this ratio."""
        self._ratio_steps = ratio_steps

    def close(self) -> None:
        """Nothing to release."""

    def targets(self, batch: CropBatch, *, device: torch.device) -> Targets:
        """fp32 logits of the batch on `device`, and the features."""
        if self._ratio_steps is None:
            raise UsageError("no epoch is prepared; call prepare with its ratio before asking for targets")
        spec = self.teacher.spec
        pixels = batch.pixels(self.recipe, mean=spec.mean, std=spec.std, device=self.teacher.device)
        dense_BPC, global_BC, features = self.teacher.answer(pixels, pooled=self._pooled, layers=self._layers)
        # Tensors made in inference mode cannot take part in a student's graph: a clone can.
        dense_BCHW = dense_BPC.transpose(1, 2).reshape(len(batch), -1, *self.grid)
        return Targets(
            ratio_steps=self._ratio_steps,
            logits_global_BC=global_BC.clone().to(device),
            logits_dense_BCHW=dense_BCHW.clone().contiguous().to(device),
            pooled_BD=None if features.pooled_BD is None else features.pooled_BD.clone().to(device),
            tokens=None if features.tokens_BLPD is None else _all(features.tokens_BLPD.clone().to(device)),
        )


def _all(tokens_BLPD: Tensor) -> TokenTargets:
    """Tokens at all positions."""
    batch, _, positions, _ = tokens_BLPD.shape
    return TokenTargets(tokens_BLPD, torch.arange(positions, device=tokens_BLPD.device).expand(batch, -1), positions)
