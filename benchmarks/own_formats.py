"""This project's encodings, each in a store of its own, written and read as `precompute` and training do."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from label_format import LabelFormat, Rows
from torch import Tensor

from cskd_pipeline.batch import Targets
from cskd_pipeline.crops.recipe import RECIPES
from cskd_pipeline.labels import Encoding, FullEncoding, HardEncoding, Records, SoftEncoding, encodings_to_json
from cskd_pipeline.losses.palette import densify, global_on_palette, on_palette
from cskd_pipeline.ratio import RATIO_STEPS
from cskd_pipeline.replay.decoding import SeedTable, table_blocks
from cskd_pipeline.store import StoreHeader, StoreReader, StoreWriter, default_block

SEED = 0
PAGE = 1024
VERSIONS = {"numpy": np.__version__, "torch": torch.__version__}
RATIO = RATIO_STEPS // 2
"""Of tables that depend on it."""


class StoreFormat(LabelFormat):
    """One encoding of this project in our store, checksums of crops and all."""

    def __init__(self, grid: tuple[int, int], classes: int) -> None:
        super().__init__(grid, classes)
        self.encoding = self._encoding()

    @abc.abstractmethod
    def _encoding(self) -> Encoding:
        """With its default settings."""

    @property
    def raw_bytes(self) -> int:
        return self.encoding.table.row_bytes

    def encode(self, dense_BPC: Tensor, global_BC: Tensor) -> Records:
        return self.encoding.encode(dense_BPC, global_BC)

    def pack(self, records: Records) -> Any:
        return self.encoding.pack(records, page=PAGE)

    def join(self, parts: list[Any]) -> Records:
        kind: type[Records] = type(parts[0])
        return kind.joined(parts)

    def header(self, crops: int, *, block: int | None = None) -> StoreHeader:
        return StoreHeader(
            recipe=RECIPES["deit"].to_json(),
            data={"name": "benchmark", "split": "train", "samples": crops, "classes": self.classes, "digest": "0" * 32},
            teacher={"model": "benchmark"},
            grid=self.grid,
            encodings=encodings_to_json({self.encoding.name: self.encoding}),
            block=block or default_block(crops, self.encoding.field.row_bytes),
        )

    def write(self, folder: Path, records: Records, order: Rows) -> None:
        header = self.header(len(order))
        crc = np.random.Generator(np.random.Philox(1)).integers(0, 1 << 32, len(order), np.uint32)
        writer = StoreWriter(folder, header)
        for block in range(header.blocks):
            rows = header.rows(block)
            chosen = records.take(order[rows.start : rows.stop])
            writer.write_block(
                SEED, block, {self.encoding.name: chosen}, crc[rows.start : rows.stop], versions=VERSIONS
            )

    def load(self, folder: Path) -> npt.NDArray[Any]:
        reader, spec = StoreReader(folder), self.encoding.table
        table = np.empty((reader.header.samples, *spec.row_shape), spec.dtype)
        ratio_steps = RATIO if self.encoding.follows_ratio else 0
        done = 0
        for entries in table_blocks(reader, SeedTable(SEED, self.encoding.name, ratio_steps)):
            table[done : done + len(entries)] = entries
            done += len(entries)
        return table

    def gather(self, table: npt.NDArray[Any], rows: Rows) -> Targets:
        entries = np.take(table, rows, axis=0)
        return self.encoding.targets(entries, grid=self.grid, ratio_steps=RATIO, device=torch.device("cpu"))

    def field(self, file: Path) -> str:
        """The field's name; "commits" and "metadata" are the rest."""
        if file.name in ("zarr.json", ".lock"):
            return "metadata"
        return file.parts[1]


class Hard(StoreFormat):
    """Exact hard targets."""

    name = "hard"

    def _encoding(self) -> Encoding:
        return HardEncoding(positions=self.positions, classes=self.classes)

    def log_probabilities(self, table: Any, rows: Rows) -> None:
        return None

    def winners(self, folder: Path, ratios: Sequence[int], crops: int) -> npt.NDArray[Any]:
        reader = StoreReader(folder)
        blocks = -(-crops // reader.header.block)
        joined = self.join([reader.read(SEED, block, self.name) for block in range(blocks)])
        return np.stack([self.encoding.tabulate(joined, ratio_steps=k)[:crops, 1:] for k in ratios])


class Soft(StoreFormat):
    """Quantised soft targets."""

    name = "soft"

    def _encoding(self) -> Encoding:
        return SoftEncoding(positions=self.positions, classes=self.classes)

    def log_probabilities(self, table: Any, rows: Rows) -> tuple[Tensor, Tensor]:
        sparse = self.gather(table, rows).sparse
        assert sparse is not None
        dense_BCP = densify(on_palette(sparse, ratio_steps=RATIO_STEPS), classes=self.classes)
        global_BC1 = densify(global_on_palette(sparse), classes=self.classes)
        return dense_BCP.transpose(1, 2), global_BC1[:, :, 0]


class Full(StoreFormat):
    """All logits in fp16."""

    name = "full"

    def _encoding(self) -> Encoding:
        return FullEncoding(positions=self.positions, classes=self.classes)

    def log_probabilities(self, table: Any, rows: Rows) -> tuple[Tensor, Tensor]:
        targets = self.gather(table, rows)
        assert targets.logits_dense_BCHW is not None and targets.logits_global_BC is not None
        return targets.logits_dense_BCHW.flatten(2).transpose(1, 2), targets.logits_global_BC
