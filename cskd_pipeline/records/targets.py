"""What the teacher said about a batch, in the form an objective needs."""

from __future__ import annotations

import dataclasses

from torch import Tensor


@dataclasses.dataclass(frozen=True, slots=True)
class SparseTargets:
    """Distributions over classes of a batch, as a few named classes each and a rule for the others.

    Every crop has a palette of U slots (classes, each once). The global output keeps the first K slots or fewer, a
    position keeps up to k slots. All other classes share a mass, the tail; `losses.palette` says how. Logarithms are at
    temperature 1, relative to the likeliest kept class: log-probabilities up to a constant of each distribution. All
    tensors are on one device.

    Attributes:
        class_BU: int64, the class of each slot; 0 where not in use.
        used_BU: bool, which slots are in use.
        slot_BkP: uint8, the kept slots of every position, the likeliest first; U where there are fewer.
        log_BkP: fp32, their logarithms, minus infinity where there are fewer.
        tail_BP: fp32, logarithm of the mass of all other classes together.
        global_log_BK: fp32, logarithms of the first K slots for the global output, minus infinity where not kept.
        global_tail_B: fp32, the global output's tail.
        classes: C.
    """

    class_BU: Tensor
    used_BU: Tensor
    slot_BkP: Tensor
    log_BkP: Tensor
    tail_BP: Tensor
    global_log_BK: Tensor
    global_tail_B: Tensor
    classes: int


@dataclasses.dataclass(frozen=True, slots=True)
class Targets:
    """The teacher's targets of one batch; a field that was not asked for is None.

    Attributes:
        ratio_steps: r * 65536 of the schedule, 0 (all global) to 65536 (all local).
        hard_global_B: int64, argmax_c g.
        hard_dense_BHW: int64, argmax_c r*d + (1-r)*g at every grid position, ties to the lowest class.
        logits_global_BC: fp32, g.
        logits_dense_BCHW: fp32, d.
        sparse: soft targets of all positions (p = row * W + column) and of the global output, instead of logits.
    """

    ratio_steps: int
    hard_global_B: Tensor | None = None
    hard_dense_BHW: Tensor | None = None
    logits_global_BC: Tensor | None = None
    logits_dense_BCHW: Tensor | None = None
    sparse: SparseTargets | None = None
