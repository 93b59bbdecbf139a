"""Losses and the fusion of targets: pure, fp32 inside, one value per example; the caller averages."""

from cskd_pipeline.losses.cross_entropy import soft_target_cross_entropy
from cskd_pipeline.losses.cumulative import hard_dense, soft_dense
from cskd_pipeline.losses.distillation import hard_global, soft_global
from cskd_pipeline.losses.fusion import fuse, harden
from cskd_pipeline.losses.terms import global_term, truth_term

__all__ = [
    "fuse",
    "global_term",
    "hard_dense",
    "hard_global",
    "harden",
    "soft_dense",
    "soft_global",
    "soft_target_cross_entropy",
    "truth_term",
]
