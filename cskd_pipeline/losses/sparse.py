"""Soft distillation from sparse targets: the losses of `soft_dense` and `soft_global` without targets of size C.

With target q (one value for all classes outside the palette) and student z, KL(q || softmax(z)) needs only
logsumexp(z), sum(z) and z at the palette.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from cskd_pipeline.batch import SparseTargets
from cskd_pipeline.losses.palette import PaletteLogs, global_on_palette, on_palette


def sparse_dense(dense_BCHW: Tensor, sparse: SparseTargets, *, ratio_steps: int, temperature: float) -> Tensor:
    """`soft_dense` against t = r*d + (1 - r)*g of sparse targets, SUMMED over the grid, fp32 [B]."""
    logs = on_palette(sparse, ratio_steps=ratio_steps)
    return palette_divergence(dense_BCHW.flatten(2), logs, temperature=temperature).sum(1)


def sparse_global(dist_BC: Tensor, sparse: SparseTargets, *, temperature: float) -> Tensor:
    """`soft_global` against g of sparse targets, divided by C, fp32 [B]."""
    logs = global_on_palette(sparse)
    return palette_divergence(dist_BC[:, :, None], logs, temperature=temperature)[:, 0] / dist_BC.shape[1]


def palette_divergence(student_BCX: Tensor, logs: PaletteLogs, *, temperature: float) -> Tensor:
    """T^2 * KL(softmax(t/T) || softmax(student/T)) at every place, fp32 [B, X]; targets get no gradient.

    `student_BCX` are logits in any floating dtype, `logs` is t at the same X places.
    """
    used_BU1 = logs.used_BU[:, :, None]
    log_BUX, outside_BX = logs.log_BUX / temperature, logs.outside_BX / temperature
    several_B1 = logs.outside_B[:, None]
    total_BX = torch.logaddexp(log_BUX.masked_fill(~used_BU1, -torch.inf).logsumexp(1), outside_BX + several_B1.log())
    log_BUX, outside_BX = log_BUX - total_BX[:, None], outside_BX - total_BX
    target_BUX = log_BUX.exp() * used_BU1
    share_BX = outside_BX.exp()
    negative_entropy_BX = (target_BUX * log_BUX).sum(1) + several_B1 * share_BX * outside_BX
    excess_BUX = (target_BUX - share_BX[:, None]) * used_BU1
    cross_BX: Tensor = _CrossEntropy.apply(student_BCX, logs.class_BU, excess_BUX, share_BX, temperature)
    return temperature**2 * (negative_entropy_BX + cross_BX)


class _CrossEntropy(torch.autograd.Function):
    """-sum_c q[c] log softmax(z / T)[c], where q is `share` everywhere plus `excess` at the palette, and sums to 1.

    Autograd through the same terms would keep three tensors of the student's size; this keeps one.
    """

    @staticmethod
    def forward(
        ctx: Any, student_BCX: Tensor, class_BU: Tensor, excess_BUX: Tensor, share_BX: Tensor, temperature: float
    ) -> Tensor:
        z_BCX = student_BCX.float()
        total_BX = (z_BCX / temperature if temperature != 1 else z_BCX).logsumexp(1)
        at_BUX = z_BCX.gather(1, class_BU[:, :, None].expand_as(excess_BUX))
        linear_BX = share_BX * z_BCX.sum(1) + (excess_BUX * at_BUX).sum(1)
        ctx.save_for_backward(student_BCX, class_BU, excess_BUX, share_BX, total_BX)
        ctx.temperature = temperature
        return total_BX - linear_BX / temperature

    @staticmethod
    def backward(ctx: Any, grad_BX: Tensor) -> tuple[Tensor, None, None, None, None]:
        student_BCX, class_BU, excess_BUX, share_BX, total_BX = ctx.saved_tensors
        scaled_BX = grad_BX / ctx.temperature
        gradient_BCX = (
            student_BCX / ctx.temperature
            if student_BCX.dtype == torch.float32
            else student_BCX.float().div_(ctx.temperature)
        )
        gradient_BCX = gradient_BCX.sub_(total_BX[:, None]).exp_().sub_(share_BX[:, None])
        gradient_BCX.scatter_add_(1, class_BU[:, :, None].expand_as(excess_BUX), -excess_BUX)
        return gradient_BCX.mul_(scaled_BX[:, None]).to(student_BCX.dtype), None, None, None, None
