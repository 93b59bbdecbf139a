"""Losses and the fusion of targets: pure, fp32 inside, one value per example; the caller averages."""

from cskd_pipeline.losses.distillation import (
    hard_dense,
    hard_global,
    soft_dense,
    soft_global,
    soft_target_cross_entropy,
)
from cskd_pipeline.losses.fidelity import soft_fidelity
from cskd_pipeline.losses.fusion import fuse, harden
from cskd_pipeline.losses.normalized import normalized, sparse_normalized
from cskd_pipeline.losses.palette import densify, global_on_palette, on_palette
from cskd_pipeline.losses.sparse import sparse_dense, sparse_global
from cskd_pipeline.losses.terms import dense_term, global_term, require_head, require_targets, truth_term

__all__ = [
    "dense_term",
    "densify",
    "fuse",
    "global_on_palette",
    "global_term",
    "hard_dense",
    "hard_global",
    "harden",
    "normalized",
    "on_palette",
    "require_head",
    "require_targets",
    "soft_dense",
    "soft_fidelity",
    "soft_global",
    "soft_target_cross_entropy",
    "sparse_dense",
    "sparse_global",
    "sparse_normalized",
    "truth_term",
]
