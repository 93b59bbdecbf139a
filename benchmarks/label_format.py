"""What is compared: one way to keep a teacher's labels, from logits to a training batch."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from torch import Tensor

Rows = npt.NDArray[np.int64]


class LabelFormat(abc.ABC):
    """A format for crops with P positions and C classes.

    logits -> `encode` -> records -> `write` -> files of one seed -> `load` -> table -> `gather` -> targets of a batch
    """

    name: ClassVar[str]
    scope: ClassVar[Literal["dense", "global"]] = "dense"
    """Whether the format knows positions, or the global output only."""
    one_file_per_crop: ClassVar[bool] = False

    def __init__(self, grid: tuple[int, int], classes: int) -> None:
        self.grid, self.positions, self.classes = grid, grid[0] * grid[1], classes

    @property
    @abc.abstractmethod
    def raw_bytes(self) -> int:
        """About how much memory a crop takes in the table."""

    @abc.abstractmethod
    def encode(self, dense_BPC: Tensor, global_BC: Tensor) -> Any:
        """Records of these crops, in memory."""

    @abc.abstractmethod
    def pack(self, records: Any) -> Any:
        """What is compressed or written; counted as part of encoding."""

    @abc.abstractmethod
    def join(self, parts: list[Any]) -> Any:
        """The records of all parts, one after another."""

    @abc.abstractmethod
    def write(self, folder: Path, records: Any, order: Rows) -> None:
        """A label store whose crop i is records[order[i]]."""

    @abc.abstractmethod
    def load(self, folder: Path) -> Any:
        """All crops of the store, in the form that batches are gathered from."""

    @abc.abstractmethod
    def gather(self, table: Any, rows: Rows) -> Any:
        """The targets of these crops as an objective gets them, on the CPU."""

    @abc.abstractmethod
    def log_probabilities(self, table: Any, rows: Rows) -> tuple[Tensor | None, Tensor] | None:
        """Dense [n, P, C] and global [n, C], up to a constant each; None where the format does not keep them."""

    def winners(self, folder: Path, ratios: Sequence[int], crops: int) -> npt.NDArray[Any] | None:
        """[ratios, crops, P], the hard targets that the store keeps of its first crops; None if it keeps none.

        Formats that keep none have the hard targets that follow from their `log_probabilities`.
        """
        return None

    def field(self, file: Path) -> str:
        """What a file of the store holds; `file` is relative to the store."""
        return file.name
