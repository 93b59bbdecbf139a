"""A "store" whose labels are a function of (seed, sample), for tests of what is done with labels once they are read.

Files in its folder steer it: `hang-SEED` makes reading that seed wait until the file is gone, `broken-SEED` makes it
fail. Every block read adds a line to `log`. Run as a program it decodes as `decoding.py` does.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import sys
import time
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from cskd_pipeline.errors import DataError
from cskd_pipeline.labels.base import Encoding, FieldSpec, FixedRows, StoredRows
from cskd_pipeline.labels.full import FullEncoding

SAMPLES, BLOCK, GRID, CLASSES = 100, 32, (2, 2), 3


@dataclasses.dataclass(frozen=True, slots=True)
class MadeUpHeader:
    samples: int = SAMPLES
    block: int = BLOCK
    grid: tuple[int, int] = GRID
    recipe: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def data(self) -> dict[str, Any]:
        return {"samples": self.samples, "classes": CLASSES, "digest": "made-up"}

    @property
    def blocks(self) -> int:
        return -(-self.samples // self.block)

    def rows(self, block: int) -> range:
        return range(block * self.block, min((block + 1) * self.block, self.samples))


@dataclasses.dataclass(frozen=True, slots=True)
class MadeUpHard(Encoding):
    """Class numbers that depend on the ratio."""

    name: ClassVar[str] = "hard"
    gives: ClassVar[frozenset[str]] = frozenset({"hard"})
    follows_ratio: ClassVar[bool] = True

    @property
    def field(self) -> FieldSpec:
        return FieldSpec("hard", "<u2", (5,))

    @property
    def table(self) -> FieldSpec:
        return self.field

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name}

    def encode(self, dense_BPC: Any, global_BC: Any) -> FixedRows:
        raise AssertionError("these labels are made up: nothing encodes or stores them")

    def pack(self, records: Any, *, page: int) -> StoredRows:
        raise AssertionError("these labels are made up: nothing encodes or stores them")

    def unpack(self, stored: StoredRows, *, page: int, count: int) -> FixedRows:
        raise AssertionError("these labels are made up: nothing encodes or stores them")

    def tabulate(self, records: Any, *, ratio_steps: int) -> NDArray[np.uint16]:
        return (records.rows + ratio_steps).astype(np.uint16)

    def targets(self, entries_B: NDArray[Any], *, grid: tuple[int, int], ratio_steps: int, device: Any) -> Any:
        import torch

        from cskd_pipeline.batch import Targets

        classes = torch.from_numpy(entries_B.astype(np.int64))
        return Targets(ratio_steps, hard_global_B=classes[:, 0], hard_dense_BHW=classes[:, 1:].reshape(-1, *grid))


ENCODINGS: dict[str, Encoding] = {"hard": MadeUpHard(), "full": FullEncoding(4, CLASSES, "float32")}


def stored_rows(name: str, seed: int, samples: NDArray[np.int64]) -> NDArray[Any]:
    """What the store holds of these samples."""
    if name == "crop_crc":
        return (samples * 7919 + seed * 104729).astype(np.uint32)
    field = ENCODINGS[name].field
    entry = np.arange(int(np.prod(field.row_shape))).reshape(field.row_shape)
    lifted = samples.reshape(-1, *(1 for _ in field.row_shape))
    return (seed * 2000 + lifted * 13 + entry).astype(field.dtype)


class MadeUpReader:
    def __init__(self, path: Path, names: tuple[str, ...] = ("hard", "full")) -> None:
        self.path, self.header = str(path), MadeUpHeader()
        self.encodings = {name: ENCODINGS[name] for name in names}

    def complete_seeds(self) -> list[int]:
        return list(range(10))

    def read(self, seed: int, block: int, name: str) -> FixedRows:
        return FixedRows(stored_rows(name, seed, self._samples(seed, block, name)))

    def read_crop_crc(self, seed: int, block: int) -> NDArray[np.uint32]:
        return stored_rows("crop_crc", seed, self._samples(seed, block, "crop_crc"))

    def _samples(self, seed: int, block: int, name: str) -> NDArray[np.int64]:
        with (Path(self.path) / "log").open("a") as log:
            log.write(f"{os.getpid()} {seed} {name} {block}\n")
        while (Path(self.path) / f"hang-{seed}").exists():
            time.sleep(0.01)
        if (Path(self.path) / f"broken-{seed}").exists() and block == 1:
            raise DataError(f"block 1 of seed {seed} is damaged")
        return np.array(self.header.rows(block))


def decode() -> None:
    """`decoding.main` on made-up labels, without importing the package around it."""
    spec = importlib.util.find_spec("cskd_pipeline")
    assert spec is not None and spec.submodule_search_locations
    file = Path(spec.submodule_search_locations[0], "replay", "decoding.py")
    found = importlib.util.spec_from_file_location("decoding", file)
    assert found is not None and found.loader is not None
    program = importlib.util.module_from_spec(found)
    sys.modules[found.name] = program
    found.loader.exec_module(program)
    program.StoreReader = MadeUpReader
    program.main()


if __name__ == "__main__":
    decode()
