"""Soft targets: the likeliest classes per position and of the global output, and the mass of all others."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from cskd_pipeline.errors import UsageError
from cskd_pipeline.labels.base import Encoding, FieldSpec, FixedRows, Records, StoredRows
from cskd_pipeline.labels.soft import pages
from cskd_pipeline.labels.soft.layout import ABSENT, RANGE, SoftLayout
from cskd_pipeline.record import require_range

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from cskd_pipeline.batch import Features, Targets


@dataclasses.dataclass(frozen=True, slots=True)
class SoftEncoding(Encoding):
    """A palette of the crop's classes; per position, slots and log-probabilities of the k likeliest, and the tail.

    Settings that exceed the number of classes mean "all of them". Classes for which the palette has no room go to the
    tails, those of lowest mass first.

    Attributes:
        positions: P.
        classes: C, at most 65535.
        k: classes kept per position.
        global_k: classes kept of the global output; they come first in the palette.
        bits: log-probabilities are stored in steps of 16 / 2**bits nats.
        palette: slots in a crop's palette.
    """

    name: ClassVar[str] = "soft"
    gives: ClassVar[frozenset[str]] = frozenset({"soft"})
    follows_ratio: ClassVar[bool] = False

    positions: int
    classes: int
    k: int = 6
    global_k: int = 48
    bits: int = 5
    palette: int = 128

    def __post_init__(self) -> None:
        require_range("encoding soft: positions", self.positions, low=1, whole=True)
        require_range("encoding soft: classes", self.classes, low=1, high=65535, whole=True)
        require_range("encoding soft: k", self.k, low=1, high=255, whole=True)
        require_range("encoding soft: bits", self.bits, low=3, high=7, whole=True)  # tails then fit a byte
        require_range("encoding soft: palette", self.palette, low=1, high=255, whole=True)
        require_range("encoding soft: global_k", self.global_k, low=1, whole=True)
        if self.global_k > self.palette:
            raise UsageError(
                f"encoding soft: a palette of {self.palette} has no room for global_k {self.global_k}; "
                "give a larger palette, or a smaller global_k"
            )

    @property
    def layout(self) -> SoftLayout:
        """The fields of a row that these settings lead to."""
        return SoftLayout(
            positions=self.positions,
            classes=self.classes,
            k=min(self.k, self.palette, self.classes),
            global_k=min(self.global_k, self.classes),
            palette=min(self.palette, self.classes),
            levels=1 << self.bits,
        )

    @property
    def field(self) -> FieldSpec:
        """Field `soft`: pages of uint8."""
        return FieldSpec("soft", "|u1", (self.layout.row_bytes,))

    @property
    def table(self) -> FieldSpec:
        """The rows, uint8 [R]."""
        return self.field

    def encode(
        self, dense_BPC: Tensor, global_BC: Tensor, labels_B2: Tensor | None = None, features: Features | None = None
    ) -> FixedRows:
        """Rows, uint8 [B, R]."""
        from cskd_pipeline.labels.soft.encode import encode_rows

        return FixedRows(encode_rows(dense_BPC, global_BC, self.layout).cpu().numpy())

    def pack(self, records: Records, *, page: int) -> StoredRows:
        """The pages of `pages.pack`."""
        assert isinstance(records, FixedRows)
        return pages.pack(records.rows, self.layout, page=page)

    def unpack(self, stored: StoredRows, *, page: int, count: int) -> FixedRows:
        """The rows in these pages, checked."""
        return FixedRows(pages.unpack(stored, self.layout, page=page, count=count))

    def tabulate(self, records: Records, *, ratio_steps: int) -> npt.NDArray[Any]:
        """The rows as they are."""
        assert isinstance(records, FixedRows)
        return records.rows

    def targets(
        self, entries_B: npt.NDArray[Any], *, grid: tuple[int, int], ratio_steps: int, device: torch.device
    ) -> Targets:
        """Sparse targets, whose distributions `cskd_pipeline.losses` defines."""
        import torch

        from cskd_pipeline.batch import SparseTargets, Targets

        layout = self.layout
        fields = layout.fields()
        rows = torch.from_numpy(np.ascontiguousarray(entries_B)).to(device, non_blocking=True)
        # Comparing whole tensors of one type is several times faster than comparing with a number or a column.
        slot_BL = torch.arange(layout.palette, device=device, dtype=torch.uint8).expand(len(rows), -1)
        shared_BL = rows[:, fields["shared"]].expand(-1, layout.palette).contiguous()
        other_BL = slot_BL >= shared_BL
        used_BL = slot_BL < shared_BL + rows[:, fields["others"]]
        code_BL = rows[:, fields["palette_low"]].int() + (rows[:, fields["palette_high"]].int() << 8)
        ascending_BL = ((code_BL + 1) * other_BL.int()).cumsum(1, dtype=torch.int32) - 1
        class_BL = torch.where(other_BL, ascending_BL, code_BL) * used_BL.int()

        slot_BkP = rows[:, fields["slot"]].reshape(len(rows), layout.k, self.positions)
        log_BkP = torch.zeros(slot_BkP.shape, dtype=torch.float32, device=device)
        step_BjP = rows[:, fields["step"]].reshape(len(rows), layout.k - 1, self.positions)
        for rank in range(1, layout.k):  # faster than a cumulative sum along this axis
            torch.sub(log_BkP[:, rank - 1], step_BjP[:, rank - 1], alpha=layout.step, out=log_BkP[:, rank])
        log_BkP.masked_fill_(slot_BkP == torch.full_like(slot_BkP, ABSENT), -torch.inf)
        global_BK = torch.zeros(len(rows), layout.global_k, device=device)
        global_BK[:, 1:] = rows[:, fields["global_step"]].cumsum(1, dtype=torch.float32) * -layout.step
        global_BK.masked_fill_(other_BL[:, : layout.global_k], -torch.inf)
        return Targets(
            ratio_steps=ratio_steps,
            sparse=SparseTargets(
                class_BU=class_BL.long(),
                used_BU=used_BL,
                slot_BkP=slot_BkP.clamp(max=layout.palette),
                log_BkP=log_BkP,
                tail_BP=rows[:, fields["tail"]] * layout.step - RANGE,
                global_log_BK=global_BK,
                global_tail_B=rows[:, fields["global_tail"].start] * layout.step - RANGE,
                classes=self.classes,
            ),
        )
