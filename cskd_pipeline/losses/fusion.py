"""Cumulative Knowledge Fusion (CSKD, arXiv 2307.08500): local and global targets blended over time."""

from __future__ import annotations

from torch import Tensor

from cskd_pipeline.batch import Targets
from cskd_pipeline.errors import MismatchError
from cskd_pipeline.ratio import fused, require_ratio_steps


def fuse(dense_BCHW: Tensor, global_BC: Tensor, *, ratio_steps: int) -> Tensor:
    """t = r*d + (1 - r)*g at every grid position, fp32 [B, C, H, W], with r = ratio_steps / 65536; see `fused`."""
    require_ratio_steps(ratio_steps)
    return fused(dense_BCHW.float(), global_BC.float()[:, :, None, None], ratio_steps)


def harden(targets: Targets) -> Targets:
    """`targets` with missing hard fields computed from its logits; ties go to the lowest class.

    Objectives use it to get hard targets from a live teacher or from a store of full logits.

    Raises:
        MismatchError: the targets have neither a hard global target nor global logits.
    """
    global_BC, dense_BCHW = targets.logits_global_BC, targets.logits_dense_BCHW
    hard_B, hard_BHW = targets.hard_global_B, targets.hard_dense_BHW
    if hard_B is None:
        if global_BC is None:
            raise MismatchError(
                "the targets hold neither hard classes nor logits; take them from a loader made for this objective, of "
                "a store with targets `hard`"
            )
        hard_B = global_BC.float().argmax(1)
    if hard_BHW is None and global_BC is not None and dense_BCHW is not None:
        # argmax returns the first of equal maxima, which is the lowest class.
        hard_BHW = fuse(dense_BCHW, global_BC, ratio_steps=targets.ratio_steps).argmax(1)
    return targets._replace(hard_global_B=hard_B, hard_dense_BHW=hard_BHW)
