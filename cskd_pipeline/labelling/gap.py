"""Warn where the two definitions of "global logits" differ: the mean of dense logits, and the model's own output."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np

from cskd_pipeline.labelling.job import PrecomputeJob
from cskd_pipeline.loading import CropLoader, block_batches

ROUNDING: Mapping[str, float] = MappingProxyType({"fp32": 1e-4, "fp16": 1e-2, "bf16": 5e-2})
"""Gap that rounding alone can cause, relative to the largest logit, by precision of the forward pass."""


def warn_of_gap(job: PrecomputeJob, *, seed: int, report: Callable[[str], None]) -> float:
    """Measure |mean of dense logits - head's logits| on one chunk of crops; report it if rounding cannot explain it.

    Returns:
        The largest gap, in logits.
    """
    total = len(job.index)
    rows = range(min(total, job.recipe.group))
    wanted = next(block_batches(job.recipe, seed, rows, total=total, batch=job.teacher.spec.chunk))
    batch = next(CropLoader(job.index, job.recipe, workers=0).load([wanted]))
    spec = job.teacher.spec
    pixels = batch.pixels(job.recipe, mean=spec.mean, std=spec.std, device=job.teacher.device)
    gap, largest, changed = job.teacher.gap(pixels)
    if not np.isfinite(gap) or gap > ROUNDING[spec.precision] * largest:
        report(
            f"warning: {spec.model}'s own output is not the mean of its dense logits: they differ by up to {gap:.3g}, "
            f"and in the winning class of {changed:.0%} of crops; the store's global targets are the "
            f"{'mean' if spec.global_source == 'mean' else 'own output'} (--global-source)"
        )
    return gap
