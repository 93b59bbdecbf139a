"""`pickle-per-image`: the content of `topk10-fp16`, one pickle a crop in a folder a class, as several peers keep it."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from label_format import Rows

from peers.topk_rows import TopkRows

FOLDERS = 1000


class PicklePerImage(TopkRows):
    """A file a crop; a real set has another file for every further seed, or a longer list in each."""

    name = "pickle-per-image"
    one_file_per_crop = True

    def pack(self, records: npt.NDArray[Any]) -> list[bytes]:
        names = self.row.names or ()
        return [pickle.dumps({"seed": 0, **{name: record[name] for name in names}}) for record in records]

    def write(self, folder: Path, records: npt.NDArray[Any], order: Rows) -> None:
        for number in range(min(FOLDERS, len(order))):
            (folder / f"n{number:08d}").mkdir(parents=True)
        for crop, row in enumerate(order):
            (content,) = self.pack(records[row : row + 1])
            self._file(folder, crop).write_bytes(content)

    def load(self, folder: Path) -> npt.NDArray[Any]:
        crops = sum(len(list(entry.iterdir())) for entry in folder.iterdir())
        table = np.empty(crops, self.row)
        for crop in range(crops):
            record = pickle.loads(self._file(folder, crop).read_bytes())
            for name in self.row.names or ():
                table[name][crop] = record[name]
        return table

    def field(self, file: Path) -> str:
        return "pickles"

    def _file(self, folder: Path, crop: int) -> Path:
        return folder / f"n{crop % FOLDERS:08d}" / f"{crop}.pkl"
