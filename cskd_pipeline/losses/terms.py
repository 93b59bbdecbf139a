"""The terms of objectives: each is the loss of one head, for any form of targets.

The first two are DeiT's (arXiv 2012.12877), the dense one is CSKD's (arXiv 2307.08500).
"""

from __future__ import annotations

from torch import Tensor

from cskd_pipeline.batch import MixedLabels, StudentOutput, Targets
from cskd_pipeline.errors import DataError, UsageError
from cskd_pipeline.losses.cross_entropy import soft_target_cross_entropy
from cskd_pipeline.losses.cumulative import hard_dense, soft_dense
from cskd_pipeline.losses.distillation import hard_global, soft_global
from cskd_pipeline.losses.fusion import fuse, harden
from cskd_pipeline.losses.sparse import sparse_dense, sparse_global


def truth_term(output: StudentOutput, labels: MixedLabels) -> Tensor:
    """CE(z_cls, y) against the true labels, mixed and smoothed, fp32 [B]."""
    return soft_target_cross_entropy(output.cls_BC, labels.probabilities_BC(output.cls_BC.shape[1]))


def global_term(output: StudentOutput, targets: Targets, *, mode: str, temperature: float) -> Tensor:
    """The loss of z_dist against the teacher's global output, fp32 [B].

    Args:
        output: of a student with a second head.
        targets: with logits or sparse targets; in hard mode, hard classes or logits.
        mode: "hard" or "soft".
        temperature: T of the soft loss; the hard loss ignores it.

    Raises:
        DataError: the targets hold nothing for this mode.
        UsageError: the student lacks the head.
    """
    if output.dist_BC is None:
        raise UsageError("the student gave no distillation logits, which the loss reads; give it a distillation head")
    if mode == "hard":
        classes_B = harden(targets).hard_global_B
        assert classes_B is not None
        return hard_global(output.dist_BC, classes_B)
    if targets.logits_global_BC is not None:
        return soft_global(output.dist_BC, targets.logits_global_BC, temperature=temperature)
    if targets.sparse is not None:
        return sparse_global(output.dist_BC, targets.sparse, temperature=temperature)
    raise _no_soft_targets()


def dense_term(output: StudentOutput, targets: Targets, *, mode: str, temperature: float) -> Tensor:
    """The loss of z_patch against the fused targets, fp32 [B]; arguments and errors are those of `global_term`."""
    if output.dense_BCHW is None:
        raise UsageError("the student gave no dense logits, which the loss reads; give it the teacher's grid")
    if mode == "hard":
        classes_BHW = harden(targets).hard_dense_BHW
        if classes_BHW is None:
            raise DataError("the targets hold no hard classes by position; make a store with targets `hard`")
        return hard_dense(output.dense_BCHW, classes_BHW)
    global_BC, teacher_BCHW, steps = targets.logits_global_BC, targets.logits_dense_BCHW, targets.ratio_steps
    if global_BC is not None and teacher_BCHW is not None:
        fused_BCHW = fuse(teacher_BCHW, global_BC, ratio_steps=steps)
        return soft_dense(output.dense_BCHW, fused_BCHW, temperature=temperature)
    if targets.sparse is not None:
        return sparse_dense(output.dense_BCHW, targets.sparse, ratio_steps=steps, temperature=temperature)
    raise _no_soft_targets()


def _no_soft_targets() -> DataError:
    return DataError("the targets hold neither logits nor sparse soft targets; make a store with targets `soft`")
