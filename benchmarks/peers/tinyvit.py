"""`tinyvit-top100`: the label files of TinyViT (Wu et al., ECCV 2022), as their repository describes them.

    rank0-keys.txt     the key of every record, a line each; here of the length of ImageNet's file names
    rank0-values.bin   the records: int32 seed of the augmentation, int16 class numbers [k], fp16 probabilities [k]

Only the global output is kept. The reader builds a dictionary from keys to record numbers, and the target of a batch
is dense: the mass that is not kept is spread uniformly over the other classes. Probabilities rounded to fp16 can sum
to more than one: what is left over is then negative; here it counts as `SMALLEST_TAIL`.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from label_format import LabelFormat, Rows
from torch import Tensor

K = 100
SMALLEST_TAIL = 1e-7


@dataclasses.dataclass(frozen=True, slots=True)
class KeyedRecords:
    """Records and the dictionary that finds them."""

    number: dict[str, int]
    keys: list[str]
    records: npt.NDArray[Any]


class TinyVit(LabelFormat):
    """Top-k of the global output in keyed binary files."""

    name = "tinyvit-top100"
    scope = "global"

    @property
    def record(self) -> np.dtype[Any]:
        """4 + 4 k bytes."""
        k = min(K, self.classes)
        return np.dtype([("seed", "<i4"), ("ids", "<i2", (k,)), ("probabilities", "<f2", (k,))])

    @property
    def raw_bytes(self) -> int:
        return self.record.itemsize

    def encode(self, dense_BPC: Tensor, global_BC: Tensor) -> npt.NDArray[Any]:
        records = np.zeros(len(global_BC), self.record)
        kept = global_BC.softmax(-1).topk(records["ids"].shape[1], dim=-1)
        records["ids"] = kept.indices.numpy()
        records["probabilities"] = kept.values.numpy()
        return records

    def pack(self, records: npt.NDArray[Any]) -> bytes:
        return records.tobytes()

    def join(self, parts: list[Any]) -> npt.NDArray[Any]:
        return np.concatenate(parts)

    def write(self, folder: Path, records: npt.NDArray[Any], order: Rows) -> None:
        folder.mkdir(parents=True)
        crops = range(len(order))
        (folder / "rank0-keys.txt").write_text("".join(f"n{i % 1000:08d}/n{i % 1000:08d}_{i}.JPEG\n" for i in crops))
        with (folder / "rank0-values.bin").open("wb") as file:
            for start in range(0, len(order), 32_768):
                file.write(self.pack(records[order[start : start + 32_768]]))

    def load(self, folder: Path) -> KeyedRecords:
        keys = (folder / "rank0-keys.txt").read_text().splitlines()
        records = np.fromfile(folder / "rank0-values.bin", self.record)
        return KeyedRecords({key: number for number, key in enumerate(keys)}, keys, records)

    def gather(self, table: KeyedRecords, rows: Rows) -> Tensor:
        """Probabilities [n, C]."""
        found = table.records[[table.number[table.keys[row]] for row in rows.tolist()]]
        ids = torch.from_numpy(found["ids"].astype(np.int64))
        kept = torch.from_numpy(found["probabilities"].astype(np.float32))
        left = (1 - kept.sum(1, keepdim=True)).clamp(min=SMALLEST_TAIL) / max(1, self.classes - ids.shape[1])
        return left.expand(-1, self.classes).scatter(1, ids, kept)

    def log_probabilities(self, table: KeyedRecords, rows: Rows) -> tuple[None, Tensor]:
        # fp16 rounds the smallest probabilities to zero.
        return None, self.gather(table, rows).clamp(min=SMALLEST_TAIL / self.classes).log()
