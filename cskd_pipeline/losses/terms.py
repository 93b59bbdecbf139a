"""The terms of objectives: each is the loss of one head, for any form of targets.

The first two are DeiT's (arXiv 2012.12877), the dense one is CSKD's (arXiv 2307.08500).
"""

from __future__ import annotations

from torch import Tensor, nn

from cskd_pipeline.batch import MixedLabels, StudentOutput, Targets, TokenTargets
from cskd_pipeline.errors import MismatchError, UsageError
from cskd_pipeline.losses.distillation import (
    hard_dense,
    hard_global,
    soft_dense,
    soft_global,
    soft_target_cross_entropy,
)
from cskd_pipeline.losses.fusion import fuse, harden
from cskd_pipeline.losses.palette import densify, global_on_palette
from cskd_pipeline.losses.sparse import sparse_dense, sparse_global


def truth_term(output: StudentOutput, labels: MixedLabels) -> Tensor:
    """CE(z_cls, y) against the true labels, mixed and smoothed, fp32 [B]; errors as `require_head`."""
    cls_BC = require_head(output, "cls_BC")
    return soft_target_cross_entropy(cls_BC, labels.probabilities_BC(cls_BC.shape[1]))


def truth_of_all_heads(output: StudentOutput, labels: MixedLabels) -> Tensor:
    """CE(z_cls, y); for a student with several heads the mean over z_cls, z_dist or z_cls, z_conv, z_inv; fp32 [B].

    Training all heads gives every parameter a gradient and makes the accuracy of combined heads meaningful.
    """
    loss_B, heads = truth_term(output, labels), 1
    for logits_BC in (output.dist_BC, output.conv_BC, output.inv_BC):
        if logits_BC is not None:
            loss_B = loss_B + soft_target_cross_entropy(logits_BC, labels.probabilities_BC(logits_BC.shape[1]))
            heads += 1
    return loss_B / heads


def global_logits(targets: Targets) -> Tensor:
    """g, or logarithms of its probabilities from sparse targets, fp32 [B, C].

    Sparse targets are written out: this is one distribution per example, as large as the student's own logits.

    Raises:
        MismatchError: the targets hold neither.
    """
    if targets.logits_global_BC is not None:
        return targets.logits_global_BC
    if targets.sparse is not None:
        return densify(global_on_palette(targets.sparse), classes=targets.sparse.classes)[:, :, 0].float()
    raise _no_soft_targets()


def global_term(output: StudentOutput, targets: Targets, *, mode: str, temperature: float) -> Tensor:
    """The loss of z_dist against the teacher's global output, fp32 [B]; `mode` is "hard" or "soft".

    The hard loss reads hard classes or logits and ignores the temperature; the soft one logits or sparse targets.

    Raises:
        UsageError: the student has no second head.
        MismatchError: the targets hold nothing for this mode.
    """
    dist_BC = require_head(output, "dist_BC")
    if mode == "hard":
        classes_B = harden(targets).hard_global_B
        assert classes_B is not None
        return hard_global(dist_BC, classes_B)
    if targets.logits_global_BC is not None:
        return soft_global(dist_BC, targets.logits_global_BC, temperature=temperature)
    if targets.sparse is not None:
        return sparse_global(dist_BC, targets.sparse, temperature=temperature)
    raise _no_soft_targets()


def dense_term(output: StudentOutput, targets: Targets, *, mode: str, temperature: float) -> Tensor:
    """The loss of z_patch against the fused targets, fp32 [B]; arguments and errors are those of `global_term`."""
    dense_BCHW = require_head(output, "dense_BCHW")
    if mode == "hard":
        classes_BHW = harden(targets).hard_dense_BHW
        if classes_BHW is None:
            raise MismatchError("the targets hold no dense classes; take them from a loader made for this objective")
        return hard_dense(dense_BCHW, classes_BHW)
    global_BC, teacher_BCHW, steps = targets.logits_global_BC, targets.logits_dense_BCHW, targets.ratio_steps
    if global_BC is not None and teacher_BCHW is not None:
        fused_BCHW = fuse(teacher_BCHW, global_BC, ratio_steps=steps)
        return soft_dense(dense_BCHW, fused_BCHW, temperature=temperature)
    if targets.sparse is not None:
        return sparse_dense(dense_BCHW, targets.sparse, ratio_steps=steps, temperature=temperature)
    raise _no_soft_targets()


def require_head(output: StudentOutput, head: str) -> Tensor:
    """The logits in a field of `StudentOutput`; raises UsageError if the student lacks it, or gave something else."""
    if not isinstance(output, StudentOutput):
        raise UsageError(
            f"objectives read a StudentOutput, found {type(output).__name__}; make the student with "
            "labels.student(name), or return a cskd_pipeline.batch.StudentOutput"
        )
    logits: Tensor | None = getattr(output, head)
    if logits is None:
        raise UsageError(
            f"the student gives no {head}, which the objective reads; make it for this objective: "
            "labels.student(name, objective)"
        )
    return logits


def require_targets(targets: Targets | None) -> Targets:
    """A batch's targets; raises UsageError where there are none."""
    if targets is None:
        raise UsageError("the objective reads a teacher's targets, found None; give it those of the loader's batch")
    return targets


def require_pooled(targets: Targets | None) -> Tensor:
    """The teacher's pooled feature; raises UsageError or MismatchError where there is none."""
    pooled_BD = require_targets(targets).pooled_BD
    if pooled_BD is None:
        raise _no_features("features.pooled")
    return pooled_BD


def require_token_targets(targets: Targets | None) -> TokenTargets:
    """The teacher's patch tokens; raises UsageError or MismatchError where there are none."""
    tokens = require_targets(targets).tokens
    if tokens is None:
        raise _no_features("features.tokens")
    return tokens


def require_tokens(
    output: StudentOutput, adapter: nn.Module | None, *, layers: int
) -> tuple[tuple[Tensor, ...], nn.Module]:
    """The student's patch tokens of `layers` blocks, and what takes them; UsageError if one is missing."""
    found = 0 if output.tokens is None else len(output.tokens)
    if output.tokens is None or found != layers:
        raise UsageError(
            f"the student shows patch tokens of {found} blocks, the objective reads {layers}; make it for this "
            "objective: labels.student(name, objective)"
        )
    if adapter is None:
        raise UsageError(
            "the objective has layers of its own, which the student holds: call objective(student(pixels), labels, "
            "targets, student.adapter)"
        )
    return output.tokens, adapter


def _no_features(kind: str) -> MismatchError:
    return MismatchError(
        "the targets hold no features; take them from a loader made for this objective, of a store with targets "
        f"`{kind}`"
    )


def _no_soft_targets() -> MismatchError:
    return MismatchError(
        "the targets hold neither logits nor sparse soft targets; take them from a loader made for this objective, of "
        "a store with targets `soft`"
    )
