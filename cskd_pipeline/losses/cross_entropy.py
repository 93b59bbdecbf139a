"""The supervised loss against mixed and smoothed labels."""

from __future__ import annotations

from torch import Tensor


def soft_target_cross_entropy(logits_BC: Tensor, probabilities_BC: Tensor) -> Tensor:
    """-sum_c p[c] log softmax(z)[c] of every example, fp32 [B].

    Args:
        logits_BC: logits in any floating dtype.
        probabilities_BC: fp32 target probabilities, each row summing to one.
    """
    return -(probabilities_BC * logits_BC.float().log_softmax(1)).sum(1)
