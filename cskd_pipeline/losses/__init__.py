"""Losses and the fusion of targets: pure, fp32 inside, one value per example; the caller averages."""

from cskd_pipeline.losses.distillation import (
    hard_dense,
    hard_global,
    soft_dense,
    soft_global,
    soft_target_cross_entropy,
    tempered_divergence,
)
from cskd_pipeline.losses.features import (
    as_precise_as,
    at_positions,
    draw_mask,
    known_tokens,
    normed_distance,
    summed_distance,
)
from cskd_pipeline.losses.fidelity import soft_fidelity
from cskd_pipeline.losses.fusion import fuse, harden
from cskd_pipeline.losses.logits import (
    decoupled,
    normalized,
    standardised,
    transformed,
    uncorrelated_batch,
    uncorrelated_classes,
    with_label_odds,
)
from cskd_pipeline.losses.palette import densify, global_on_palette, on_palette
from cskd_pipeline.losses.sparse import sparse_dense, sparse_global
from cskd_pipeline.losses.terms import (
    dense_term,
    global_logits,
    global_term,
    require_head,
    require_pooled,
    require_targets,
    require_token_targets,
    require_tokens,
    truth_of_all_heads,
    truth_term,
)

__all__ = [
    "as_precise_as",
    "at_positions",
    "decoupled",
    "dense_term",
    "densify",
    "draw_mask",
    "fuse",
    "global_logits",
    "global_on_palette",
    "global_term",
    "hard_dense",
    "hard_global",
    "harden",
    "known_tokens",
    "normalized",
    "normed_distance",
    "on_palette",
    "require_head",
    "require_pooled",
    "require_targets",
    "require_token_targets",
    "require_tokens",
    "soft_dense",
    "soft_fidelity",
    "soft_global",
    "soft_target_cross_entropy",
    "sparse_dense",
    "sparse_global",
    "standardised",
    "summed_distance",
    "tempered_divergence",
    "transformed",
    "truth_of_all_heads",
    "truth_term",
    "uncorrelated_batch",
    "uncorrelated_classes",
    "with_label_odds",
]
