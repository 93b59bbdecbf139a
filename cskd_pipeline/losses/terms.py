"""The two terms that distillation through a second head shares, whatever is added to them (arXiv 2012.12877)."""

from __future__ import annotations

from torch import Tensor

from cskd_pipeline.losses.cross_entropy import soft_target_cross_entropy
from cskd_pipeline.losses.distillation import hard_global, soft_global
from cskd_pipeline.losses.fusion import harden
from cskd_pipeline.records.batch import MixedLabels, StudentOutput
from cskd_pipeline.records.targets import Targets


def truth_term(output: StudentOutput, labels: MixedLabels) -> Tensor:
    """CE(z_cls, y) against the true labels, mixed and smoothed, fp32 [B]."""
    return soft_target_cross_entropy(output.cls_BC, labels.probabilities_BC(output.cls_BC.shape[1]))


def global_term(output: StudentOutput, targets: Targets, *, mode: str, temperature: float) -> Tensor:
    """The loss of z_dist against the teacher's global output, fp32 [B].

    Args:
        output: of a student with a second head.
        targets: with logits, or in hard mode with hard classes instead.
        mode: "hard" or "soft".
        temperature: T of the soft loss; the hard loss ignores it.

    Raises:
        DataError: hard mode, and there is neither a hard global target nor global logits.
    """
    assert output.dist_BC is not None
    if mode == "hard":
        classes_B = harden(targets).hard_global_B
        assert classes_B is not None
        return hard_global(output.dist_BC, classes_B)
    assert targets.logits_global_BC is not None
    return soft_global(output.dist_BC, targets.logits_global_BC, temperature=temperature)
