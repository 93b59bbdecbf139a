"""`topk10-fp16`: what one would write first. Ten classes at every position and 32 globally, kept as fp16.

A row holds uint16 class numbers and fp16 log-probabilities. The mass that is not kept is spread uniformly over the
other classes. The container is the same as ours: zarr shards of zstd chunks with checksums.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import zarr
from label_format import LabelFormat, Rows
from torch import Tensor
from zarr.codecs import ZstdCodec

from cskd_pipeline.store import default_block

DENSE_K, GLOBAL_K = 10, 32
CHUNK = 1024
SMALLEST_TAIL = 1e-7
"""Rounded probabilities can sum to more than one; the tail is then this."""


class TopkRows(LabelFormat):
    """One row a crop in a zarr array."""

    name = "topk10-fp16"

    @property
    def row(self) -> np.dtype[Any]:
        """Class numbers first: likes beside likes compress better."""
        k, global_k = min(DENSE_K, self.classes), min(GLOBAL_K, self.classes)
        return np.dtype(
            [
                ("ids", "<u2", (self.positions, k)),
                ("global_ids", "<u2", (global_k,)),
                ("logs", "<f2", (self.positions, k)),
                ("global_logs", "<f2", (global_k,)),
            ]
        )

    @property
    def raw_bytes(self) -> int:
        return self.row.itemsize

    def encode(self, dense_BPC: Tensor, global_BC: Tensor) -> npt.NDArray[Any]:
        rows = np.empty(len(dense_BPC), self.row)
        for prefix, logits in (("", dense_BPC), ("global_", global_BC)):
            kept = logits.log_softmax(-1).topk(rows[f"{prefix}ids"].shape[-1], dim=-1)
            rows[f"{prefix}ids"] = kept.indices.numpy()
            rows[f"{prefix}logs"] = kept.values.numpy()
        return rows

    def pack(self, records: npt.NDArray[Any]) -> Any:
        return records.view(np.uint8).reshape(len(records), -1)

    def join(self, parts: list[Any]) -> npt.NDArray[Any]:
        return np.concatenate(parts)

    def write(self, folder: Path, records: npt.NDArray[Any], order: Rows) -> None:
        block = default_block(len(order), self.raw_bytes)
        padded = -(-len(order) // block) * block
        array = zarr.create_array(
            folder / "topk",
            shape=(padded, self.raw_bytes),
            shards=(block, self.raw_bytes),
            chunks=(min(CHUNK, block), self.raw_bytes),
            dtype=np.uint8,
            compressors=[ZstdCodec(level=3, checksum=True)],
            fill_value=255,
            attributes={"crops": len(order)},
            zarr_format=3,
        )
        for start in range(0, len(order), block):
            rows = np.full((block, self.raw_bytes), 255, np.uint8)
            part = self.pack(records[order[start : start + block]])
            rows[: len(part)] = part
            array[start : start + block] = rows

    def load(self, folder: Path) -> npt.NDArray[Any]:
        array = zarr.open_array(folder / "topk", mode="r", zarr_format=3)
        crops = array.attrs["crops"]
        assert isinstance(crops, int)
        return np.ascontiguousarray(array[:crops]).view(self.row).reshape(-1)

    def gather(self, table: npt.NDArray[Any], rows: Rows) -> tuple[Tensor, ...]:
        """Class numbers, log-probabilities and the log mass of the tail, by position and globally."""
        entries = np.take(table, rows)
        targets = []
        for prefix in ("", "global_"):
            ids = torch.from_numpy(entries[f"{prefix}ids"].astype(np.int64))
            logs = torch.from_numpy(entries[f"{prefix}logs"].astype(np.float32))
            tail = (1 - logs.exp().sum(-1)).clamp(min=SMALLEST_TAIL).log()
            targets += [ids, logs, tail]
        return tuple(targets)

    def log_probabilities(self, table: Any, rows: Rows) -> tuple[Tensor, Tensor]:
        dense, global_ = self.gather(table, rows)[:3], self.gather(table, rows)[3:]
        return self._spread(*dense), self._spread(*global_)

    def field(self, file: Path) -> str:
        return "metadata" if file.name == "zarr.json" else "topk"

    def _spread(self, ids: Tensor, logs: Tensor, tail: Tensor) -> Tensor:
        others = max(1, self.classes - ids.shape[-1])
        filled = (tail - float(np.log(others)))[..., None].expand(*tail.shape, self.classes)
        return filled.scatter(-1, ids, logs)
