"""How close sparse soft targets are to the teacher's distributions."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cskd_pipeline.batch import SparseTargets
from cskd_pipeline.losses.palette import densify, global_on_palette, on_palette
from cskd_pipeline.ratio import RATIO_STEPS


@torch.no_grad()
def soft_fidelity(sparse: SparseTargets, dense_BPC: Tensor, global_BC: Tensor) -> dict[str, npt.NDArray[np.float64]]:
    """Four measures of every crop, float64 [B] each. Builds full distributions, so use it on samples.

    Args:
        sparse: what was stored.
        dense_BPC: d, the teacher's logits of the same crops.
        global_BC: g.

    Returns:
        kl_dense: KL(softmax(d) || decoded) in nats at T = 1, mean over positions; targets at ratio 1.
        kl_global: KL(softmax(g) || decoded) in nats; targets at ratio 0.
        kept_dense: the mass of softmax(d) on the classes that a position keeps, mean over positions.
        kept_global: the mass of softmax(g) on the classes that the global output keeps.
    """
    slots = sparse.class_BU.shape[1]
    true_BCP, true_BC1 = (
        dense_BPC.double().log_softmax(2).transpose(1, 2),
        global_BC.double().log_softmax(1)[:, :, None],
    )
    decoded_BCP = densify(on_palette(sparse, ratio_steps=RATIO_STEPS), classes=sparse.classes)
    decoded_BC1 = densify(global_on_palette(sparse), classes=sparse.classes)
    slot_BkP = sparse.slot_BkP.long()
    none_BkP = slot_BkP == slots
    class_BkP = (
        sparse.class_BU[:, :, None].expand(-1, -1, slot_BkP.shape[2]).gather(1, slot_BkP.masked_fill(none_BkP, 0))
    )
    kept_BkP = true_BCP.gather(1, class_BkP).exp().masked_fill(none_BkP, 0)
    kept_BK = true_BC1[:, :, 0].gather(1, sparse.class_BU[:, : sparse.global_log_BK.shape[1]]).exp()
    kept_BK = kept_BK.masked_fill(sparse.global_log_BK == -torch.inf, 0)
    measured = {
        "kl_dense": _divergence(true_BCP, decoded_BCP),
        "kl_global": _divergence(true_BC1, decoded_BC1),
        "kept_dense": kept_BkP.sum(1).mean(1),
        "kept_global": kept_BK.sum(1),
    }
    return {name: value_B.cpu().numpy() for name, value_B in measured.items()}


def _divergence(true_BCX: Tensor, decoded_BCX: Tensor) -> Tensor:
    true_mass = true_BCX.exp()
    difference = torch.where(true_mass > 0, true_BCX - decoded_BCX.double(), 0)  # 0 log 0 is 0
    return (true_mass * difference).sum(1).mean(1)
