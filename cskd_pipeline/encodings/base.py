"""What an encoding is: a self-describing rule between logits and one fixed-size row per crop."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from torch import Tensor

    from cskd_pipeline.records.targets import Targets


@dataclasses.dataclass(frozen=True, slots=True)
class FieldSpec:
    """The array an encoding fills: its name in the store and the dtype and shape of one crop's row."""

    name: str
    dtype: str
    row_shape: tuple[int, ...]

    @property
    def row_bytes(self) -> int:
        """Uncompressed size of one row."""
        return int(np.dtype(self.dtype).itemsize * np.prod(self.row_shape))


@dataclasses.dataclass(frozen=True, slots=True)
class EncodedRows:
    """Encoded crops: one row each, and the bytes of the rows that did not fit.

    Attributes:
        rows: [n, *row_shape] of the field's dtype.
        spill: uint8 [m]; a row that overflows points into it. Most encodings leave it empty.
    """

    rows: npt.NDArray[Any]
    spill: npt.NDArray[np.uint8]


class Encoding(abc.ABC):
    """A rule between logits and rows. Implementations are frozen records that know P and C."""

    name: ClassVar[str]
    gives: ClassVar[frozenset[str]]
    """Which targets can be decoded: a subset of {"hard", "soft"}."""

    @property
    @abc.abstractmethod
    def field(self) -> FieldSpec:
        """The array this encoding fills."""

    @abc.abstractmethod
    def to_json(self) -> dict[str, Any]:
        """The encoding's settings as JSON values, its name under "name"."""

    @abc.abstractmethod
    def encode(self, dense_BPC: Tensor, global_BC: Tensor) -> EncodedRows:
        """The rows of these logits (fp32, any device); row i's spill pointer is relative to this batch.

        Raises:
            DataError: a logit is not finite, or not representable.
        """

    @abc.abstractmethod
    def join(self, parts: Sequence[EncodedRows]) -> EncodedRows:
        """One block's rows from the rows of its batches, spill pointers rebased."""

    @abc.abstractmethod
    def decode(self, encoded: EncodedRows, *, grid: tuple[int, int], ratio_steps: int) -> Targets:
        """The targets of all rows, on the CPU, at the schedule's ratio `ratio_steps` / 65536.

        Raises:
            DataError: a row is not one that `encode` could have written.
        """

    @abc.abstractmethod
    def check(self, encoded: EncodedRows) -> None:
        """Nothing, if every row is one that `encode` could have written; needs no torch.

        Raises:
            DataError: one is not.
        """

    @abc.abstractmethod
    def equal(self, ours: EncodedRows, theirs: EncodedRows) -> npt.NDArray[np.bool_]:
        """bool [n], which rows mean the same; spill pointers may differ, what they point to must not."""
