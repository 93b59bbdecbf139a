"""Exact hard targets for every schedule (CSKD, ICCV 2023: argmax of t = r*d + (1-r)*g at every position).

For each position, `search` finds the classes that win as r goes from 0 to 1, and where each takes over. `records` holds
these lists, and `pages` turns them into bytes. Nothing is approximated, and no list has a maximum length: a page of
crops that needs more than its room goes to the block's spill.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from cskd_pipeline.labels.base import Encoding, FieldSpec, Records, StoredRows
from cskd_pipeline.labels.hard import pages
from cskd_pipeline.labels.hard.records import HardRecords
from cskd_pipeline.ratio import require_ratio_steps
from cskd_pipeline.record import require_range

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from cskd_pipeline.batch import Features, Targets

MAX_CLASSES = 65_535


@dataclasses.dataclass(frozen=True, slots=True)
class HardEncoding(Encoding):
    """Exact for r in {0, 1/65536, ..., 1}: argmax over all classes of r*d + (1-r)*g in fp32, ties to the lowest.

    Attributes:
        positions: P.
        classes: C, at most 65,535.
        row_bytes: room per crop in a page, before compression; a page that needs more spills. 0 means 32 + 8 * P,
            about three times the mean with 1,000 classes.
    """

    name: ClassVar[str] = "hard"
    gives: ClassVar[frozenset[str]] = frozenset({"hard"})
    follows_ratio: ClassVar[bool] = True

    positions: int
    classes: int
    row_bytes: int = 0

    def __post_init__(self) -> None:
        require_range("encoding hard: classes", self.classes, low=1, high=MAX_CLASSES, whole=True)
        require_range("encoding hard: positions", self.positions, low=1, whole=True)
        require_range("encoding hard: row_bytes", self.row_bytes, low=0, whole=True)
        if self.row_bytes == 0:
            object.__setattr__(self, "row_bytes", 32 + 8 * self.positions)
        require_range("encoding hard: row_bytes", self.row_bytes, low=4 * pages.HEADER, high=1 << 20, whole=True)

    @property
    def field(self) -> FieldSpec:
        """Field `hard`: pages of uint8."""
        return FieldSpec("hard", "|u1", (self.row_bytes,))

    @property
    def table(self) -> FieldSpec:
        """Winning classes, uint16 [1 + P]: the global one, then one per position."""
        return FieldSpec("hard", "<u2", (1 + self.positions,))

    def encode(
        self, dense_BPC: Tensor, global_BC: Tensor, labels_B2: Tensor | None = None, features: Features | None = None
    ) -> HardRecords:
        """The lists of every crop. The search runs on the CPU; logits on another device are copied."""
        import torch

        from cskd_pipeline.labels.hard.search import search

        dense, global_ = (logits.to("cpu", torch.float32).contiguous().numpy() for logits in (dense_BPC, global_BC))
        return search(dense, global_)

    def pack(self, records: Records, *, page: int) -> StoredRows:
        """The pages of `pages.pack`."""
        assert isinstance(records, HardRecords)
        return pages.pack(records, page=page, row_bytes=self.row_bytes)

    def unpack(self, stored: StoredRows, *, page: int, count: int) -> HardRecords:
        """The lists in these pages, each in the only form that an encoder gives it."""
        records = pages.unpack(stored, page=page, row_bytes=self.row_bytes, positions=self.positions, count=count)
        fault = records.fault(self.classes)
        if fault is not None:
            raise pages.damaged(fault)
        return records

    def tabulate(self, records: Records, *, ratio_steps: int) -> npt.NDArray[np.uint16]:
        """uint16 [n, 1 + P]: the classes that win at this ratio; raises as `require_ratio_steps`."""
        assert isinstance(records, HardRecords)
        require_ratio_steps(ratio_steps)
        return records.winners(ratio_steps)

    def targets(
        self, entries_B: npt.NDArray[Any], *, grid: tuple[int, int], ratio_steps: int, device: torch.device
    ) -> Targets:
        """Hard targets, int64."""
        import torch

        from cskd_pipeline.batch import Targets

        classes = torch.from_numpy(np.ascontiguousarray(entries_B)).to(device).to(torch.int64)
        return Targets(
            ratio_steps=ratio_steps,
            hard_global_B=classes[:, 0].contiguous(),
            hard_dense_BHW=classes[:, 1:].reshape(-1, *grid),
        )
