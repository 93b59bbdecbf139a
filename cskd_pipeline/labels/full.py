"""Full logits: all classes at every position, for few classes, for parity tests and as a reference."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from cskd_pipeline.errors import DataError
from cskd_pipeline.labels.base import FieldSpec, FixedRows
from cskd_pipeline.labels.rows import RowEncoding
from cskd_pipeline.record import require_choice, require_range

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from cskd_pipeline.batch import Features, Targets


@dataclasses.dataclass(frozen=True, slots=True)
class FullEncoding(RowEncoding):
    """An entry per crop: row 0 holds the global logits, row 1 + p those of position p, in one float dtype.

    Attributes:
        positions: P.
        classes: C.
        dtype: "float32" keeps the teacher's logits to the bit; "float16" rounds them to nearest.
    """

    name: ClassVar[str] = "full"
    gives: ClassVar[frozenset[str]] = frozenset({"hard", "soft"})
    follows_ratio: ClassVar[bool] = False

    positions: int
    classes: int
    dtype: Literal["float16", "float32"] = "float16"

    def __post_init__(self) -> None:
        require_choice("encoding full: dtype", self.dtype, ("float16", "float32"))
        require_range("encoding full: classes", self.classes, low=1, whole=True)
        require_range("encoding full: positions", self.positions, low=1, whole=True)

    @property
    def field(self) -> FieldSpec:
        """Field `full`, [P + 1, C]."""
        return FieldSpec("full", "<f2" if self.dtype == "float16" else "<f4", (self.positions + 1, self.classes))

    def encode(
        self, dense_BPC: Tensor, global_BC: Tensor, labels_B2: Tensor | None = None, features: Features | None = None
    ) -> FixedRows:
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
        return FixedRows(stored.cpu().numpy().astype(self.field.dtype, copy=False))

    def targets(
        self, entries_B: npt.NDArray[Any], *, grid: tuple[int, int], ratio_steps: int, device: torch.device
    ) -> Targets:
        """Logits as fp32; hard targets follow from them (see `cskd_pipeline.losses`)."""
        import torch

        from cskd_pipeline.batch import Targets

        logits = torch.from_numpy(np.ascontiguousarray(entries_B)).to(device).to(torch.float32)
        dense_BPC = logits[:, 1:]
        return Targets(
            ratio_steps=ratio_steps,
            logits_global_BC=logits[:, 0].contiguous(),
            logits_dense_BCHW=dense_BPC.transpose(1, 2).reshape(len(logits), self.classes, *grid).contiguous(),
        )
