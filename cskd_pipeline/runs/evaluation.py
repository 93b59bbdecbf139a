"""The images that a student is scored on, for `train`, `evaluate` and anybody's own loop."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cskd_pipeline.errors import MismatchError
from cskd_pipeline.progress import Watch
from cskd_pipeline.runs.data import open_data, split_to_score

if TYPE_CHECKING:
    import torch
    from torch import nn

    from cskd_pipeline.data import SampleIndex
    from cskd_pipeline.loading import EvaluationSet


def scored_images(
    trained: SampleIndex, *, data: str | None, root: str | None, split: str | None, watch: Watch
) -> SampleIndex | None:
    """The split that goes with the images that a student is trained on; None where the data has no such split.

    Args:
        trained: the images that it is trained on.
        data: what these were opened by; None where they were found by their digest.
        root: where a known data set lies; None for $CSKD_DATA_ROOT.
        split: its name; None takes val, else test.
        watch: told how far the indexing is.

    Raises:
        UsageError, DataError, RetryError: as `data.open_split`.
        MismatchError: its classes are not those of the training split.
    """
    from cskd_pipeline.data import data_source

    source = data or data_source(trained)
    split = split or split_to_score(source, root)
    if split is None:
        return None
    index = open_data(source, split=split, root=root, watch=watch)
    if index.classes != trained.classes:
        raise MismatchError(
            f"split {split} has {len(index.classes)} classes that are not the {len(trained.classes)} of the "
            "training split"
        )
    return index


def evaluation_set(
    model: nn.Module,
    index: SampleIndex,
    *,
    size: int,
    crop_pct: float,
    device: torch.device,
    workers: int,
    batch: int = 256,
) -> EvaluationSet:
    """Centre crops of these images, normalised as `model` expects, each of them on one rank."""
    from cskd_pipeline.loading import EvaluationSet
    from cskd_pipeline.models.timm_model import normalisation
    from cskd_pipeline.runtime.ranks import rank, world_size

    mean, std = normalisation(model)
    return EvaluationSet(
        index=index,
        size=size,
        crop_pct=crop_pct,
        mean=mean,
        std=std,
        device=device,
        batch=batch,
        workers=workers,
        rank=rank(),
        world=world_size(),
    )
