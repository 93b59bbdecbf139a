"""How close decoded labels are to what the teacher said, measured on a sample of every block as it is made."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from cskd_pipeline.batch import Features
from cskd_pipeline.labels import Encoding, PooledEncoding, Records, TokensEncoding
from cskd_pipeline.losses import fuse, soft_fidelity
from cskd_pipeline.ratio import RATIO_STEPS
from cskd_pipeline.store import Fidelity

RATIOS = (0, 1, 8_191, 16_384, 26_001, 32_768, 40_000, 49_152, 60_001, RATIO_STEPS - 1, RATIO_STEPS)
"""Ratios, in steps, at which hard targets are compared with the argmax."""


def measure(
    encodings: Mapping[str, Encoding],
    records: Mapping[str, Records],
    dense_BPC: Tensor,
    global_BC: Tensor,
    labels_B2: Tensor | None = None,
    features: Features | None = None,
    *,
    grid: tuple[int, int],
) -> Fidelity:
    """Fidelity of these crops' records after a round trip through their stored form.

    "agreement" is the share of hard targets, over all positions and `RATIOS`, that equal the argmax over all classes
    of the uncompressed logits; anything but 1 is a bug. "kl_dense" and "kl_global" are KL(teacher || decoded) in nats,
    at a position and of the global output. "kept_dense" and "kept_global" are the probability mass of the classes
    that are stored by name. "probability" is the mean absolute error of the true classes' probabilities. Of features,
    "error" is the squared error relative to the square of the feature, meaned over vectors, and "cosine" their
    cosine; of patch tokens for each layer.
    """
    found: Fidelity = {}
    for name, encoding in encodings.items():
        stored = encoding.pack(records[name], page=len(dense_BPC))
        again = encoding.unpack(stored, page=len(dense_BPC), count=len(dense_BPC))
        if "soft" in encoding.gives:
            means = _divergence(encoding, again, dense_BPC, global_BC, grid)
        elif "hard" in encoding.gives:
            means = _agreement(encoding, again, dense_BPC, global_BC, grid)
        elif isinstance(encoding, PooledEncoding | TokensEncoding):
            means = _closeness(encoding, again, features, grid)
        else:
            means = _probability(encoding, again, global_BC, labels_B2, grid)
        found[name] = {"crops": len(dense_BPC), **means}
    return found


def _agreement(
    encoding: Encoding, records: Records, dense_BPC: Tensor, global_BC: Tensor, grid: tuple[int, int]
) -> dict[str, float]:
    dense_BCHW = dense_BPC.transpose(1, 2).reshape(len(dense_BPC), -1, *grid)
    agreed = []
    for ratio_steps in RATIOS:
        entries = encoding.tabulate(records, ratio_steps=ratio_steps)
        targets = encoding.targets(entries, grid=grid, ratio_steps=ratio_steps, device=dense_BPC.device)
        assert targets.hard_dense_BHW is not None and targets.hard_global_B is not None
        truth_BHW = fuse(dense_BCHW, global_BC, ratio_steps=ratio_steps).argmax(1)
        agreed += [targets.hard_dense_BHW == truth_BHW, (targets.hard_global_B == global_BC.argmax(1))[:, None]]
    same = torch.cat([part.flatten() for part in agreed])
    return {"agreement": float(same.double().mean())}


def _probability(
    encoding: Encoding, records: Records, global_BC: Tensor, labels_B2: Tensor | None, grid: tuple[int, int]
) -> dict[str, float]:
    entries = encoding.tabulate(records, ratio_steps=0)
    odds_B2 = encoding.targets(entries, grid=grid, ratio_steps=0, device=global_BC.device).label_odds_B2
    assert odds_B2 is not None and labels_B2 is not None
    truth_B2 = global_BC.double().softmax(1).gather(1, labels_B2)
    return {"probability": float((odds_B2.double().sigmoid() - truth_B2).abs().mean())}


def _closeness(
    encoding: PooledEncoding | TokensEncoding, records: Records, features: Features | None, grid: tuple[int, int]
) -> dict[str, float]:
    assert features is not None
    said = features.pooled_BD if isinstance(encoding, PooledEncoding) else features.tokens_BLPD
    assert said is not None
    entries = encoding.tabulate(records, ratio_steps=0)
    targets = encoding.targets(entries, grid=grid, ratio_steps=0, device=said.device)
    if targets.pooled_BD is not None:
        return _vectors(targets.pooled_BD, said)
    assert targets.tokens is not None and isinstance(encoding, TokensEncoding)
    rows_B1 = torch.arange(len(said), device=said.device)[:, None]
    layers = zip(encoding.layers, targets.tokens.values_BLnD.unbind(1), said.unbind(1), strict=True)
    return {
        f"{key}_{'last' if layer == -1 else layer}": value
        for layer, decoded_BnD, said_BPD in layers
        for key, value in _vectors(decoded_BnD, said_BPD[rows_B1, targets.tokens.kept_Bn]).items()
    }


def _vectors(decoded_XD: Tensor, said_XD: Tensor) -> dict[str, float]:
    decoded_XD, said_XD = decoded_XD.double(), said_XD.double()
    error_X = (decoded_XD - said_XD).square().sum(-1) / said_XD.square().sum(-1).clamp(min=1e-30)
    cosine_X = torch.nn.functional.cosine_similarity(decoded_XD, said_XD, dim=-1)
    return {"error": float(error_X.mean()), "cosine": float(cosine_X.mean())}


def _divergence(
    encoding: Encoding, records: Records, dense_BPC: Tensor, global_BC: Tensor, grid: tuple[int, int]
) -> dict[str, float]:
    entries = encoding.tabulate(records, ratio_steps=0)
    targets = encoding.targets(entries, grid=grid, ratio_steps=0, device=dense_BPC.device)
    if targets.sparse is not None:
        by_crop = soft_fidelity(targets.sparse, dense_BPC, global_BC)
        return {name: float(values_B.mean()) for name, values_B in by_crop.items()}
    assert targets.logits_dense_BCHW is not None and targets.logits_global_BC is not None
    decoded_BPC = targets.logits_dense_BCHW.flatten(2).transpose(1, 2)
    return {
        "kl_dense": float(_divergences(dense_BPC, decoded_BPC).mean()),
        "kl_global": float(_divergences(global_BC, targets.logits_global_BC).mean()),
    }


def _divergences(truth: Tensor, decoded: Tensor) -> Tensor:
    """KL(softmax(truth) || softmax(decoded)) over the last axis, fp64."""
    log_truth, log_decoded = truth.double().log_softmax(-1), decoded.double().log_softmax(-1)
    return (log_truth.exp() * (log_truth - log_decoded)).sum(-1)
