"""Soft targets on a palette: a logarithm for each class that a crop names, and one for all classes that it does not.

This module defines the distributions that sparse targets stand for. Up to a constant of each distribution:

- The global output g has the stored logarithms at the classes it keeps. All other classes share its tail equally.
- A position d has the stored logarithms at the classes it keeps. All others share its tail in proportion to g ** A.
- No other class gets more than the least likely class that the distribution keeps.

So all classes outside the palette have equal probability, and nothing of size C per position is ever needed.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from cskd_pipeline.batch import SparseTargets
from cskd_pipeline.ratio import fused, require_ratio_steps

TAIL_POWER = 0.55
"""A, part of store format 1. Tuned on five sets at 7 x 7 positions (docs/decisions/0008): three synthetic ones of 1,000
classes, confident to smoothed, and small CNNs on 200 and 500 classes of real images. The best values are 0.5 to 0.7."""


@dataclasses.dataclass(frozen=True, slots=True)
class PaletteLogs:
    """Unnormalised distributions of B crops at X places each.

    Attributes:
        class_BU: int64, the class of each slot.
        used_BU: bool, which slots are in use.
        log_BUX: fp32, logarithms at the slots; finite but meaningless at unused slots.
        outside_BX: fp32, the logarithm of each class outside the palette; finite even if there is none.
        outside_B: fp32, how many classes are outside.
    """

    class_BU: Tensor
    used_BU: Tensor
    log_BUX: Tensor
    outside_BX: Tensor
    outside_B: Tensor


def on_palette(sparse: SparseTargets, *, ratio_steps: int) -> PaletteLogs:
    """t = r*d + (1 - r)*g at all P positions, with r = ratio_steps / 65536; raises as `require_ratio_steps`."""
    require_ratio_steps(ratio_steps)
    shared = global_on_palette(sparse)
    dense = _dense_on_palette(sparse, shared)
    return dataclasses.replace(
        dense,
        log_BUX=fused(dense.log_BUX, shared.log_BUX, ratio_steps),
        outside_BX=fused(dense.outside_BX, shared.outside_BX, ratio_steps),
    )


def global_on_palette(sparse: SparseTargets) -> PaletteLogs:
    """g, as a single place."""
    kept_BK = sparse.global_log_BK > -torch.inf
    outside_B = (sparse.classes - sparse.used_BU.sum(1)).float()
    others_B = sparse.classes - kept_BK.sum(1)
    least_B = sparse.global_log_BK.masked_fill(~kept_BK, torch.inf).amin(1)
    rest_B = torch.minimum(sparse.global_tail_B - others_B.clamp(min=1).log(), least_B)
    log_BU = rest_B[:, None].expand(sparse.used_BU.shape).clone()
    log_BU[:, : kept_BK.shape[1]] = torch.where(kept_BK, sparse.global_log_BK, rest_B[:, None])
    return PaletteLogs(sparse.class_BU, sparse.used_BU, log_BU[:, :, None], rest_B[:, None], outside_B)


def _dense_on_palette(sparse: SparseTargets, shared: PaletteLogs) -> PaletteLogs:
    slot_BkP = sparse.slot_BkP.long()
    slots = sparse.used_BU.shape[1]
    share_BU1, share_B1 = TAIL_POWER * shared.log_BUX, TAIL_POWER * shared.outside_BX
    peak_B1 = share_BU1[:, :, 0].masked_fill(~sparse.used_BU, -torch.inf).amax(1, keepdim=True)
    weight_BU = (share_BU1[:, :, 0] - peak_B1).exp() * sparse.used_BU
    # Not a matrix product: autocast would round its factors.
    total_BP = _with_spare(weight_BU[:, :, None].expand(-1, -1, slot_BkP.shape[2]))
    total_BP = total_BP.scatter_(1, slot_BkP, 0.0)[:, :slots].sum(1)
    total_BP = total_BP + shared.outside_B[:, None] * (share_B1 - peak_B1).exp()
    offset_BP = sparse.tail_BP - total_BP.clamp(min=torch.finfo(torch.float32).tiny).log() - peak_B1
    least_BP = sparse.log_BkP.masked_fill(slot_BkP == slots, torch.inf).amin(1)
    log_BUP = torch.minimum(share_BU1 + offset_BP[:, None], least_BP[:, None])
    log_BUP = _with_spare(log_BUP).scatter_(1, slot_BkP, sparse.log_BkP)[:, :slots]
    outside_BP = torch.minimum(share_B1 + offset_BP, least_BP)
    return dataclasses.replace(shared, log_BUX=log_BUP, outside_BX=outside_BP)


def _with_spare(value_BUP: Tensor) -> Tensor:
    """A copy with one more slot, which unused entries of a position's list point at."""
    return torch.cat([value_BUP, value_BUP[:, :1]], 1)


def densify(logs: PaletteLogs, *, classes: int) -> Tensor:
    """Log-probabilities of every class, float64 [B, C, X]: for few places, for measuring, and for tests."""
    log_BCX = logs.outside_BX[:, None].repeat(1, classes + 1, 1)
    class_BU = torch.where(logs.used_BU, logs.class_BU, classes)  # unused slots go to an extra class, cut off below
    log_BCX.scatter_(1, class_BU[:, :, None].expand_as(logs.log_BUX), logs.log_BUX)
    return log_BCX[:, :classes].double().log_softmax(1)
