"""The true labels of mixed crops, and the row of each crop's partner in its batch."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from cskd_pipeline.batch import MixedLabels
from cskd_pipeline.crops.draws import Draws
from cskd_pipeline.crops.mixing import LAM_ONE
from cskd_pipeline.crops.recipe import CropRecipe
from cskd_pipeline.errors import UsageError


def partner_rows(draws_B: Draws) -> NDArray[np.int64]:
    """int64 [B], the row of each crop's mix partner in the batch; its own row if it is not mixed.

    Raises:
        UsageError: a partner is not in the batch.
    """
    row_of = {crop: row for row, crop in enumerate(zip(*_pairs(draws_B, "sample"), strict=True))}
    try:
        rows = [row_of[crop] for crop in zip(*_pairs(draws_B, "partner"), strict=True)]
    except KeyError as missing:
        seed, sample = missing.args[0]
        raise UsageError(
            f"the batch lacks sample {sample} of seed {seed}, a mix partner of one in it; keep partners together, as "
            "EpochOrder and block_batches do"
        ) from None
    return np.array(rows, np.int64)


def mixed_labels(
    labels_B: NDArray[np.integer],
    partner_rows_B: NDArray[np.int64],
    draws_B: Draws,
    recipe: CropRecipe,
    device: torch.device | str,
) -> MixedLabels:
    """The batch's true labels, mixed with exactly the lambda of its pixels.

    Args:
        labels_B: integers [B], the class of each sample.
        partner_rows_B: int64 [B], see `partner_rows`.
        draws_B: `CROP_DRAW` [B].
        recipe: the recipe that made the draws.
        device: where to put the labels.
    """
    first_B = torch.tensor(labels_B.astype(np.int64))
    weight_B = torch.tensor(draws_B["lam"].astype(np.float32) / np.float32(LAM_ONE))
    return MixedLabels(
        first_B=first_B.to(device),
        second_B=first_B[torch.tensor(partner_rows_B)].to(device),
        weight_B=weight_B.to(device),
        smoothing=recipe.label_smoothing,
    )


def _pairs(draws_B: Draws, field: str) -> tuple[list[int], list[int]]:
    return draws_B["seed"].tolist(), draws_B[field].tolist()
