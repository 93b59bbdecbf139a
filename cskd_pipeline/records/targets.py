"""What the teacher said about a batch, in the form an objective needs."""

from __future__ import annotations

import dataclasses

from torch import Tensor


@dataclasses.dataclass(frozen=True, slots=True)
class Targets:
    """The teacher's targets of one batch; a field that was not asked for is None.

    Attributes:
        ratio_steps: r * 65536 of the schedule, 0 (all global) to 65536 (all local).
        hard_global_B: int64, argmax_c g.
        hard_dense_BHW: int64, argmax_c r*d + (1-r)*g at every grid position, ties to the lowest class.
        logits_global_BC: fp32, g.
        logits_dense_BCHW: fp32, d.
    """

    ratio_steps: int
    hard_global_B: Tensor | None = None
    hard_dense_BHW: Tensor | None = None
    logits_global_BC: Tensor | None = None
    logits_dense_BCHW: Tensor | None = None
