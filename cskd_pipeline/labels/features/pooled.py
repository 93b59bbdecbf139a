"""The feature that the teacher's classifier takes, as VkD reads it (Miles et al., CVPR 2024, arXiv 2403.06213)."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from cskd_pipeline.labels.base import FieldSpec, FixedRows, StoredRows
from cskd_pipeline.labels.features.quantise import (
    Channels,
    dequantise,
    quantise,
    require_bits,
    require_channels,
    require_codes,
    stored_scales,
    vector_bytes,
)
from cskd_pipeline.labels.rows import RowEncoding
from cskd_pipeline.record import require_range

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from cskd_pipeline.batch import Features, Targets


@dataclasses.dataclass(frozen=True, slots=True)
class PooledEncoding(RowEncoding):
    """A row per crop: one scale in half precision, and a code for each of D channels.

    Attributes:
        positions: P.
        classes: C.
        channels: scales of the channels, measured when the store is begun.
        bits: of a code, 4 to 8.
    """

    name: ClassVar[str] = "features.pooled"
    gives: ClassVar[frozenset[str]] = frozenset({"features.pooled"})
    follows_ratio: ClassVar[bool] = False

    positions: int
    classes: int
    channels: Channels
    bits: int = 7

    def __post_init__(self) -> None:
        require_range("encoding features.pooled: classes", self.classes, low=1, whole=True)
        require_range("encoding features.pooled: positions", self.positions, low=1, whole=True)
        require_channels(self.name, self.channels)
        require_bits(self.name, self.bits)

    @property
    def field(self) -> FieldSpec:
        """Field `features.pooled`, bytes."""
        return FieldSpec(self.name, "|u1", (2 + vector_bytes(len(self.channels), self.bits),))

    def encode(
        self,
        dense_BPC: Tensor,
        global_BC: Tensor,
        labels_B2: Tensor | None = None,
        features: Features | None = None,
    ) -> FixedRows:
        """Rows [B, R]."""
        assert features is not None and features.pooled_BD is not None, "the feature is what this is about"
        scale_B, code_BY = quantise(features.pooled_BD, self.channels, bits=self.bits, what="features")
        scale_B2 = scale_B.cpu().numpy().astype("<f2").view(np.uint8).reshape(-1, 2)
        return FixedRows(np.concatenate([scale_B2, code_BY.cpu().numpy()], 1))

    def unpack(self, stored: StoredRows, *, page: int, count: int) -> FixedRows:
        """The rows, of codes and scales that an encoder writes."""
        records = RowEncoding.unpack(self, stored, page=page, count=count)
        scale_n = np.ascontiguousarray(records.rows[:, :2]).view("<f2")[:, 0]
        require_codes(scale_n, records.rows[:, 2:], len(self.channels), bits=self.bits, field=self.name)
        return records

    def targets(
        self, entries_B: npt.NDArray[Any], *, grid: tuple[int, int], ratio_steps: int, device: torch.device
    ) -> Targets:
        """The feature, fp32."""
        import torch

        from cskd_pipeline.batch import Targets

        row_BR = torch.from_numpy(np.ascontiguousarray(entries_B)).to(device)
        scale_B = stored_scales(row_BR[:, :2])[:, 0]
        pooled_BD = dequantise(scale_B, row_BR[:, 2:], self.channels, bits=self.bits)
        return Targets(ratio_steps=ratio_steps, pooled_BD=pooled_BD)
