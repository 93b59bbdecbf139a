"""How much of the teacher is left after encoding, storing and decoding.

Agreement: of all pairs of a position and one of 26 ratios r from 0 to 1, the share whose decoded hard target is the
argmax over all classes of r*d + (1-r)*g in fp32. KL: mean of KL(teacher || decoded) in nats over positions and six
ratios, of the distributions softmax(r*d + (1-r)*g); `kl_global` is the same of softmax(g), which is the case r = 0.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from label_format import LabelFormat
from torch import Tensor

from cskd_pipeline.ratio import RATIO_STEPS, fused

AGREEMENT_RATIOS = tuple(round(i * RATIO_STEPS / 25) for i in range(26))
KL_RATIOS = tuple(round(i * RATIO_STEPS / 5) for i in range(6))
_BATCH = 64


@dataclasses.dataclass(frozen=True, slots=True)
class Fidelity:
    """None where a format does not keep what the number is about."""

    agreement: float | None
    kl: float | None
    kl_global: float | None


def measure(format_: LabelFormat, folder: Path, table: Any, dense_NPC: Tensor, global_NC: Tensor) -> Fidelity:
    """Fidelity of the store's first N crops, given their logits."""
    crops = len(dense_NPC)
    stored = format_.winners(folder, AGREEMENT_RATIOS, crops)
    agreed: list[float] = []
    kl: list[float] = []
    kl_global: list[float] = []
    for start in range(0, crops, _BATCH):
        rows = np.arange(start, min(start + _BATCH, crops))
        dense, global_ = dense_NPC[start : start + _BATCH], global_NC[start : start + _BATCH, None]
        decoded_dense = None
        decoded = format_.log_probabilities(table, rows)
        if decoded is not None:
            decoded_dense, decoded_global = decoded[0], decoded[1][:, None]
            kl_global.append(_divergence(global_, decoded_global))
        if decoded_dense is not None:
            kl.append(
                sum(_divergence(fused(dense, global_, k), fused(decoded_dense, decoded_global, k)) for k in KL_RATIOS)
            )
        for turn, k in enumerate(AGREEMENT_RATIOS):
            winners = None if stored is None else stored[turn, rows]
            if decoded_dense is not None:
                winners = fused(decoded_dense, decoded_global, k).argmax(-1).numpy()
            if winners is not None:
                agreed.append(float((winners == fused(dense, global_, k).argmax(-1).numpy()).sum()))
    positions = crops * dense_NPC.shape[1]
    return Fidelity(
        agreement=sum(agreed) / (positions * len(AGREEMENT_RATIOS)) if agreed else None,
        kl=sum(kl) / (positions * len(KL_RATIOS)) if kl else None,
        kl_global=sum(kl_global) / crops if kl_global else None,
    )


def _divergence(teacher: Tensor, decoded: Tensor) -> float:
    """Sum of KL(teacher || decoded) of logits over all but the last axis."""
    log_p, log_q = teacher.log_softmax(-1), decoded.log_softmax(-1)
    return float((log_p.exp() * (log_p - log_q)).sum())
