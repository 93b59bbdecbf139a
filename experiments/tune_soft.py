"""Bytes and KL error of soft targets: which settings, which power of the global output for the tail?

    python experiments/tune_soft.py confident.pt smoothed.pt real.pt

Each file holds a teacher's dense logits of crops in random order, a float tensor [crops, P, C]; their mean over P is
the global output. Prints, for every file, the error KL(softmax(t) || decoded) of the fused targets (nats, mean over
positions and r in 0, 0.2, ... 1) and the stored bytes a crop (zstd level 3, pages of 1,024), against the plain choice:
ten classes a position and 32 global ones in fp16 with ids, the tail shared equally. The constants of format 1
(`losses.palette.TAIL_POWER`, the default settings of `SoftEncoding`) rest on these tables.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from numcodecs import Zstd
from torch import Tensor

from cskd_pipeline.labels import SoftEncoding
from cskd_pipeline.labels.base import FixedRows
from cskd_pipeline.losses import densify, on_palette, palette
from cskd_pipeline.ratio import RATIO_STEPS, fused

RATIOS = [round(r * RATIO_STEPS / 5) for r in range(6)]
SETTINGS: list[dict[str, int]] = [
    {"global_k": 32},
    {"global_k": 40},
    {},
    {"bits": 4},
    {"bits": 6},
    {"bits": 7},
    {"k": 3},
    {"k": 8},
    {"palette": 96},
    {"palette": 64},
]
POWERS = [0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 1.0]
PAGE = 1024
CHUNK = 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("logits", nargs="+", type=Path)
    parser.add_argument("--crops", type=int, default=96, help="crops that the error is measured on")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for path in arguments.logits:
        dense_BPC = torch.load(path, mmap=True, weights_only=True)
        print(f"\n{path.stem}: {list(dense_BPC.shape)}\n")
        print("| targets | bytes a crop | KL | at r = 0 | at r = 1 |\n|---|---|---|---|---|")
        few_BPC = dense_BPC[: arguments.crops].float()
        row("fp16 top-10, top-32, equal tail", plain_bytes(dense_BPC), plain_errors(few_BPC))
        for settings in SETTINGS:
            encoding = SoftEncoding(positions=dense_BPC.shape[1], classes=dense_BPC.shape[2], **settings)
            records = encode(encoding, dense_BPC)
            kept = records.take(np.arange(len(few_BPC)))
            row(f"soft {settings or 'by default'}", stored_bytes(encoding, records), errors(encoding, kept, few_BPC))
        encoding = SoftEncoding(positions=dense_BPC.shape[1], classes=dense_BPC.shape[2])
        kept = encode(encoding, few_BPC)
        before = palette.TAIL_POWER
        for power in POWERS:
            palette.TAIL_POWER = power
            row(f"soft, tail power {power}", 0, errors(encoding, kept, few_BPC))
        palette.TAIL_POWER = before


def row(name: str, size: float, error: list[float]) -> None:
    size_text = f"{size:.0f}" if size else "same"
    print(f"| {name} | {size_text} | {np.mean(error):.4f} | {error[0]:.4f} | {error[-1]:.4f} |", flush=True)


def encode(encoding: SoftEncoding, dense_BPC: Tensor) -> FixedRows:
    return FixedRows.joined([encoding.encode(part, part.mean(1)) for part in dense_BPC.float().split(64)])


def stored_bytes(encoding: SoftEncoding, records: FixedRows) -> float:
    whole = len(records) // PAGE * PAGE or len(records)
    rows = encoding.pack(records.take(np.arange(whole)), page=min(PAGE, whole)).rows
    return sum(len(Zstd(3, checksum=True).encode(rows[i : i + PAGE])) for i in range(0, whole, PAGE)) / whole


def errors(encoding: SoftEncoding, records: FixedRows, dense_BPC: Tensor) -> list[float]:
    grid, cpu = (1, encoding.positions), torch.device("cpu")
    sums = np.zeros(len(RATIOS))
    for first in range(0, len(dense_BPC), CHUNK):
        true_BPC = dense_BPC[first : first + CHUNK]
        sparse = encoding.targets(records.rows[first : first + CHUNK], grid=grid, ratio_steps=0, device=cpu).sparse
        assert sparse is not None
        for i, steps in enumerate(RATIOS):
            log_BCP = densify(on_palette(sparse, ratio_steps=steps), classes=encoding.classes)
            sums[i] += divergence(true_BPC, log_BCP.transpose(1, 2), steps) * len(true_BPC)
    return list(sums / len(dense_BPC))


def divergence(true_BPC: Tensor, log_BPC: Tensor, steps: int) -> float:
    true = fused(true_BPC, true_BPC.mean(1, keepdim=True), steps).log_softmax(2)
    return float((true.exp() * (true - log_BPC)).sum(2).mean())


def plain_errors(dense_BPC: Tensor) -> list[float]:
    sums = np.zeros(len(RATIOS))
    for true_BPC in dense_BPC.split(CHUNK):
        d, g = equal_tail(true_BPC, 10), equal_tail(true_BPC.mean(1, keepdim=True), 32)
        for i, steps in enumerate(RATIOS):
            sums[i] += divergence(true_BPC, fused(d, g, steps).log_softmax(2), steps) * len(true_BPC)
    return list(sums / len(dense_BPC))


def equal_tail(logits_BPC: Tensor, k: int) -> Tensor:
    classes = logits_BPC.shape[2]
    value, index = logits_BPC.log_softmax(2).topk(min(k, classes), dim=2)
    value = value.half().float()
    tail = ((1 - value.exp().sum(2)).clamp(min=1e-7) / max(classes - k, 1)).log()
    return tail[:, :, None].repeat(1, 1, classes).scatter_(2, index, value)


def plain_bytes(dense_BPC: Tensor) -> float:
    parts = []
    for logits in dense_BPC[:PAGE].float().split(64):
        for part, k in ((logits, 10), (logits.mean(1, keepdim=True), 32)):
            value, index = part.log_softmax(2).topk(min(k, part.shape[2]), dim=2)
            parts += [index.numpy().astype("<u2").tobytes(), value.numpy().astype("<f2").tobytes()]
    return len(Zstd(3, checksum=True).encode(b"".join(parts))) / len(dense_BPC[:PAGE])


if __name__ == "__main__":
    main()
