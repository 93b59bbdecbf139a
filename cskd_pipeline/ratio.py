"""The ratio r of a schedule, and the fusion of local and global logits that it steers.

CSKD (Zhao et al., ICCV 2023), cumulative knowledge fusion: t = r*d + (1-r)*g.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cskd_pipeline.record import require_range

if TYPE_CHECKING:
    from torch import Tensor

RATIO_STEPS = 1 << 16
"""r is a multiple of 1/65536: r and 1 - r are then both exact in fp32, and a uint16 names every step but one."""


def require_ratio_steps(ratio_steps: int, *, of: str = "the schedule") -> None:
    """Raise UsageError unless `ratio_steps` is a whole number from 0 to 65536."""
    require_range(f"ratio_steps (r * {RATIO_STEPS}) of {of}", ratio_steps, low=0, high=RATIO_STEPS, whole=True)


def fused(dense: Tensor, global_: Tensor, ratio_steps: int | Tensor) -> Tensor:
    """fp32 r*d + (1-r)*g with r = ratio_steps / 65536: two products and a sum, each rounded once.

    Stored hard targets are exact with respect to this order of operations: it must not become a lerp or a fused
    multiply-add.

    Args:
        dense: fp32 d.
        global_: fp32 g, broadcast against d.
        ratio_steps: 0 to 65536, one for all or an int64 tensor that broadcasts.
    """
    r = ratio_steps / RATIO_STEPS
    return dense * r + global_ * (1 - r)
