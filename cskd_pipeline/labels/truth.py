"""What the teacher says of the true classes of a mixed crop, which soft targets may not name."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from cskd_pipeline.errors import DataError
from cskd_pipeline.labels.base import FieldSpec, FixedRows
from cskd_pipeline.labels.rows import RowEncoding
from cskd_pipeline.record import require_range

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from cskd_pipeline.batch import Features, Targets


def label_odds(logits_BC: Tensor, labels_B: Tensor) -> Tensor:
    """log p - log (1 - p) of a softmax over all classes, p the probability of the label, fp32 [B]."""
    y_B1 = labels_B[:, None]
    logits_BC = logits_BC.float()
    return logits_BC.gather(1, y_B1)[:, 0] - logits_BC.scatter(1, y_B1, -math.inf).logsumexp(1)


@dataclasses.dataclass(frozen=True, slots=True)
class TruthEncoding(RowEncoding):
    """An entry per crop: log p - log (1 - p) of the global output, for the crop's own class and its mix partner's.

    As log-odds in half precision, p is known to 1.3e-4, and small p and 1 - p to a relative 0.4 %.

    Attributes:
        positions: P.
        classes: C.
    """

    name: ClassVar[str] = "truth"
    gives: ClassVar[frozenset[str]] = frozenset({"truth"})
    follows_ratio: ClassVar[bool] = False

    positions: int
    classes: int

    def __post_init__(self) -> None:
        require_range("encoding truth: classes", self.classes, low=2, whole=True)
        require_range("encoding truth: positions", self.positions, low=1, whole=True)

    @property
    def field(self) -> FieldSpec:
        """Field `truth`, [2] in half precision."""
        return FieldSpec("truth", "<f2", (2,))

    def encode(
        self, dense_BPC: Tensor, global_BC: Tensor, labels_B2: Tensor | None = None, features: Features | None = None
    ) -> FixedRows:
        """Rows [B, 2]."""
        import torch

        assert labels_B2 is not None, "the true classes are what this is about"
        odds_B2 = torch.stack([label_odds(global_BC, labels_B) for labels_B in labels_B2.unbind(1)], 1)
        stored = odds_B2.to(torch.float16)
        if not bool(torch.isfinite(stored).all()):
            raise DataError(
                f"the teacher gave logits whose log-odds float16 cannot hold (largest magnitude "
                f"{float(odds_B2.abs().max()):g}); check the teacher's weights, or use fp32 for its forward pass"
            )
        return FixedRows(stored.cpu().numpy().astype(self.field.dtype, copy=False))

    def targets(
        self, entries_B: npt.NDArray[Any], *, grid: tuple[int, int], ratio_steps: int, device: torch.device
    ) -> Targets:
        """The log-odds, fp32."""
        import torch

        from cskd_pipeline.batch import Targets

        odds_B2 = torch.from_numpy(np.ascontiguousarray(entries_B)).to(device).to(torch.float32)
        return Targets(ratio_steps=ratio_steps, label_odds_B2=odds_B2)
