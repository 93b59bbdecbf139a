"""All classes at every position: for few classes, for parity tests and as the reference of other encodings."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from cskd_pipeline.encodings.base import EncodedRows, Encoding, FieldSpec
from cskd_pipeline.errors import DataError, UsageError
from cskd_pipeline.records.frozen import Record

if TYPE_CHECKING:
    from torch import Tensor

    from cskd_pipeline.records.targets import Targets


@dataclasses.dataclass(frozen=True, slots=True)
class FullEncoding(Record, Encoding):
    """Row 0 holds the global logits, row 1 + p those of position p, all in one float dtype.

    Attributes:
        positions: P.
        classes: C.
        dtype: "float32" keeps the teacher's logits to the bit; "float16" rounds them to nearest.
    """

    name: ClassVar[str] = "full"
    gives: ClassVar[frozenset[str]] = frozenset({"hard", "soft"})

    positions: int
    classes: int
    dtype: Literal["float16", "float32"] = "float16"

    def __post_init__(self) -> None:
        if self.dtype not in ("float16", "float32"):
            raise UsageError(f"encoding full: dtype must be float16 or float32, found {self.dtype!r}")
        if self.positions < 1 or self.classes < 1:
            raise UsageError(f"encoding full: needs positions, classes >= 1, found {self.positions}, {self.classes}")

    @property
    def field(self) -> FieldSpec:
        """Field `full`, [P + 1, C]."""
        return FieldSpec("full", "<f2" if self.dtype == "float16" else "<f4", (self.positions + 1, self.classes))

    def to_json(self) -> dict[str, Any]:
        """Settings with the name."""
        return {"name": self.name, **Record.to_json(self)}

    def encode(self, dense_BPC: Tensor, global_BC: Tensor) -> EncodedRows:
        """Rows [B, P + 1, C]."""
        import torch

        logits = torch.cat([global_BC[:, None], dense_BPC], dim=1).to(torch.float32)
        stored = logits.to(torch.float16) if self.dtype == "float16" else logits
        if not bool(torch.isfinite(stored).all()):
            largest = float(logits.abs().max())
            raise DataError(
                f"the teacher gave logits that {self.dtype} cannot hold (largest magnitude {largest:g}); "
                "check the teacher's weights, or use fp32 for its forward pass and for the encoding"
            )
        return EncodedRows(stored.cpu().numpy().astype(self.field.dtype, copy=False), np.empty(0, np.uint8))

    def join(self, parts: Sequence[EncodedRows]) -> EncodedRows:
        """Rows one after another."""
        return EncodedRows(np.concatenate([part.rows for part in parts]), np.empty(0, np.uint8))

    def decode(self, encoded: EncodedRows, *, grid: tuple[int, int], ratio_steps: int) -> Targets:
        """Logits as fp32; hard targets follow from them (see `cskd_pipeline.losses`)."""
        import torch

        from cskd_pipeline.records.targets import Targets

        self.check(encoded)
        logits = torch.from_numpy(np.ascontiguousarray(encoded.rows, dtype=np.float32))
        dense_BPC = logits[:, 1:]
        return Targets(
            ratio_steps=ratio_steps,
            logits_global_BC=logits[:, 0].contiguous(),
            logits_dense_BCHW=dense_BPC.transpose(1, 2).reshape(len(logits), self.classes, *grid).contiguous(),
        )

    def check(self, encoded: EncodedRows) -> None:
        """Every value is finite."""
        if not np.isfinite(encoded.rows).all():
            raise DataError("a `full` row holds a value that is not finite: the store is damaged; run verify")

    def equal(self, ours: EncodedRows, theirs: EncodedRows) -> npt.NDArray[np.bool_]:
        """Rows of the same bits, but for the sign of zeros."""
        same: npt.NDArray[np.bool_] = (ours.rows == theirs.rows).all(axis=(1, 2))
        return same
