"""Patch tokens of some layers at some positions, as ViTKD reads them (Yang et al., arXiv 2209.02432).

A loss that sums over positions is estimated without bias by those of a subset, drawn anew for every crop.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, ClassVar, cast

import numpy as np
import numpy.typing as npt

from cskd_pipeline.errors import DataError, UsageError
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


DEFAULT_LAYERS = (0, 1, -1)
"""ViTKD's: the first two blocks, and the last one."""


@dataclasses.dataclass(frozen=True, slots=True)
class TokensEncoding(RowEncoding):
    """A row per crop: which positions are kept, then layer by layer their scales and their codes.

    Attributes:
        positions: P.
        classes: C.
        channels: scales of the channels of each layer, measured when the store is begun.
        layers: blocks whose output is stored, from 0 and ascending; that of the last block after the final norm.
        tokens: positions kept of a crop; 0 for all.
        bits: of a code, 4 to 8, one for each layer; a single number is that of all.
    """

    name: ClassVar[str] = "features.tokens"
    gives: ClassVar[frozenset[str]] = frozenset({"features.tokens"})
    follows_ratio: ClassVar[bool] = False

    positions: int
    classes: int
    channels: tuple[Channels, ...]
    layers: tuple[int, ...] = DEFAULT_LAYERS
    tokens: int = 28
    bits: tuple[int, ...] = cast("Any", 4)

    def __post_init__(self) -> None:
        require_range("encoding features.tokens: classes", self.classes, low=1, whole=True)
        require_range("encoding features.tokens: positions", self.positions, low=1, whole=True)
        require_layers(self.layers)
        bits: Any = self.bits
        if isinstance(bits, int):
            object.__setattr__(self, "bits", (bits,) * len(self.layers))
        if not isinstance(self.bits, tuple) or len(self.bits) != len(self.layers):
            raise UsageError(
                f"encoding features.tokens: bits {self.bits!r} are not one number for each of the layers "
                f"{self.layers!r}; give 4 to 8, or such a list"
            )
        for bits in self.bits:
            require_bits(self.name, bits)
        if not isinstance(self.channels, tuple) or len(self.channels) != len(self.layers):
            raise UsageError("encoding features.tokens: channels are not a list for each of the layers")
        for channels in self.channels:
            require_channels(self.name, channels)
        if len({len(channels) for channels in self.channels}) > 1:
            raise UsageError(
                f"encoding features.tokens: layers have {', '.join(str(len(one)) for one in self.channels)} channels; "
                "all need as many"
            )
        require_range("encoding features.tokens: tokens", self.tokens, low=0, whole=True)
        if self.tokens > self.positions:
            raise UsageError(
                f"encoding features.tokens: tokens are {self.tokens}, the teacher has {self.positions} positions; "
                f"give at most {self.positions}, or 0 for all"
            )

    @property
    def kept(self) -> int:
        """n."""
        return self.tokens or self.positions

    @property
    def field(self) -> FieldSpec:
        """Field `features.tokens`, bytes."""
        return FieldSpec(self.name, "|u1", (self._spans()[-1][2],))

    def encode(
        self,
        dense_BPC: Tensor,
        global_BC: Tensor,
        labels_B2: Tensor | None = None,
        features: Features | None = None,
    ) -> FixedRows:
        """Rows [B, R]."""
        import torch

        assert features is not None and features.tokens_BLPD is not None and features.words_BP is not None
        kept_Bn = features.words_BP.argsort(dim=1, stable=True)[:, : self.kept].sort(1).values
        mask_BP = torch.zeros_like(features.words_BP, dtype=torch.uint8).scatter(1, kept_Bn, 1)
        parts = [np.packbits(mask_BP.cpu().numpy(), axis=1, bitorder="little")]
        for layer_BPD, channels, bits in zip(features.tokens_BLPD.unbind(1), self.channels, self.bits, strict=True):
            value_BnD = layer_BPD.gather(1, kept_Bn[:, :, None].expand(-1, -1, layer_BPD.shape[2]))
            scale_Bn, code_BnY = quantise(value_BnD, channels, bits=bits, what="patch tokens")
            parts += [scale_Bn.cpu().numpy().astype("<f2").view(np.uint8), code_BnY.flatten(1).cpu().numpy()]
        return FixedRows(np.concatenate(parts, 1))

    def unpack(self, stored: StoredRows, *, page: int, count: int) -> FixedRows:
        """The rows, of positions, codes and scales that an encoder writes."""
        records = RowEncoding.unpack(self, stored, page=page, count=count)
        rows = records.rows
        mask_nP = np.unpackbits(rows[:, : self._mask_bytes], axis=1, bitorder="little")
        if (mask_nP.sum(1) != self.kept).any() or mask_nP[:, self.positions :].any():
            raise DataError(
                f"a `{self.name}` row does not keep {self.kept} positions: the store is damaged; run verify"
            )
        for (start, middle, end), channels, bits in zip(self._spans(), self.channels, self.bits, strict=True):
            scale_nn = np.ascontiguousarray(rows[:, start:middle]).view("<f2")
            code_nnY = rows[:, middle:end].reshape(len(rows), self.kept, -1)
            require_codes(scale_nn, code_nnY, len(channels), bits=bits, field=self.name)
        return records

    def targets(
        self, entries_B: npt.NDArray[Any], *, grid: tuple[int, int], ratio_steps: int, device: torch.device
    ) -> Targets:
        """The tokens, fp32."""
        import torch

        from cskd_pipeline.batch import Targets, TokenTargets

        entries_B = np.ascontiguousarray(entries_B)
        mask_BP = np.unpackbits(entries_B[:, : self._mask_bytes], axis=1, count=self.positions, bitorder="little")
        kept_Bn = torch.from_numpy(np.nonzero(mask_BP)[1].reshape(len(entries_B), self.kept)).to(device)
        row_BR = torch.from_numpy(entries_B).to(device)
        layers = []
        for (start, middle, end), channels, bits in zip(self._spans(), self.channels, self.bits, strict=True):
            scale_Bn = stored_scales(row_BR[:, start:middle])
            code_BnY = row_BR[:, middle:end].reshape(len(row_BR), self.kept, -1)
            layers.append(dequantise(scale_Bn, code_BnY, channels, bits=bits))
        tokens = TokenTargets(torch.stack(layers, 1), kept_Bn, self.positions)
        return Targets(ratio_steps=ratio_steps, tokens=tokens)

    @property
    def _mask_bytes(self) -> int:
        return -(-self.positions // 8)

    def _spans(self) -> list[tuple[int, int, int]]:
        """Where each layer's scales begin in a row, where its codes do, and where they end."""
        spans, end = [], self._mask_bytes
        for channels, bits in zip(self.channels, self.bits, strict=True):
            start, middle = end, end + 2 * self.kept
            end = middle + self.kept * vector_bytes(len(channels), bits)
            spans.append((start, middle, end))
        return spans


def require_layers(layers: Any) -> None:
    """Raise UsageError unless these name blocks, each once, from the first to the last (-1 being the last)."""
    if not isinstance(layers, tuple) or not layers or not all(type(layer) is int for layer in layers):
        raise UsageError(
            f"encoding features.tokens: layers must be a list of blocks such as [0,1,-1], found {layers!r}"
        )
    first, last = layers[:-1], layers[-1]
    if (
        any(layer < 0 for layer in first)
        or last < -1
        or list(first) != sorted({*first})
        or 0 <= last <= max(first, default=-1)
    ):
        raise UsageError(
            f"encoding features.tokens: layers are {list(layers)}; name each once, ascending from 0, the last may be -1"
        )
