"""Vectors of features as small integers: a scale for each channel, which a store knows, and one for each vector.

A value is code * scale of its vector * scale of its channel. Without channel scales the few large channels of a
vision transformer would decide the step of all others.

Shape letters besides those of `labels.base`: D channels, X any leading dimensions, Y bytes of a vector's codes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from cskd_pipeline.errors import DataError, UsageError
from cskd_pipeline.record import require_range

if TYPE_CHECKING:
    from torch import Tensor

BITS = (4, 5, 6, 7, 8)
"""Two codes of 4 bits share a byte; one of 5 to 8 bits takes a byte, which the store compresses."""

MAX_WIDTH = 1 << 16
_QUARTER_OCTAVES = np.array([1, 1.1892071, 1.4142135, 1.6817929], np.float32)
_MAX_CHANNEL = 256  # 2^64
_QUIET = 8
"""A channel counts as one of at least an eighth of the mean channel's magnitude: it may be quiet by chance."""

Channels = tuple[int, ...]
"""The channels' scales: k stands for 2^(k / 4)."""


def require_channels(name: str, channels: Any) -> None:
    """Raise UsageError unless these are scales of channels."""
    if not isinstance(channels, tuple) or not 0 < len(channels) <= MAX_WIDTH:
        raise UsageError(f"encoding {name}: channels must be a list of whole numbers, found {str(channels)[:40]}")
    for value in channels:
        require_range(f"encoding {name}: a channel", value, low=-_MAX_CHANNEL, high=_MAX_CHANNEL, whole=True)


def require_bits(name: str, bits: Any) -> None:
    """Raise UsageError unless codes of that many bits are offered."""
    if type(bits) is not int or bits not in BITS:
        raise UsageError(f"encoding {name}: bits are {bits!r}; choose 4 to 8")


def measure_channels(values_nD: Tensor) -> Channels:
    """Scales for vectors like these: the root mean square of each channel, to a quarter of an octave.

    Raises:
        DataError: a value is not finite.
    """
    import torch

    power_D = values_nD.double().square().mean(0)
    if not bool(torch.isfinite(power_D).all()):
        raise DataError(
            "the teacher gave features that are not finite; check the teacher's weights, or use fp32 for its forward "
            "pass"
        )
    floor = power_D.mean() / _QUIET**2
    octaves_D = torch.maximum(power_D, floor.clamp(min=1e-30)).log2() / 2
    k_D = (4 * octaves_D).round().clamp(-_MAX_CHANNEL, _MAX_CHANNEL)
    return tuple(int(k) for k in k_D.tolist())


def channel_scales(channels: Channels) -> npt.NDArray[np.float32]:
    """2^(k / 4), fp32 [D], the same on every machine."""
    k_D = np.asarray(channels, np.int64)
    return np.ldexp(_QUARTER_OCTAVES[k_D % 4], (k_D // 4).astype(np.int32))


def vector_bytes(width: int, bits: int) -> int:
    """Y: bytes that a vector's codes take."""
    return -(-width // 2) if bits == 4 else width


def quantise(values_XD: Tensor, channels: Channels, *, bits: int, what: str) -> tuple[Tensor, Tensor]:
    """Scales fp16 [X] and codes uint8 [X, Y] of fp32 vectors on any device.

    Raises:
        DataError: a value is not finite, or half precision cannot hold a scale; `what` names the vectors.
    """
    import torch

    levels = _levels(bits)
    scaled_XD = values_XD.float() / torch.from_numpy(channel_scales(channels)).to(values_XD.device)
    largest_X = scaled_XD.abs().amax(-1)
    # Division by a plain number would be multiplication by its reciprocal on a GPU.
    scale_X = (largest_X / torch.full_like(largest_X, levels)).to(torch.float16)
    if not bool(torch.isfinite(scale_X).all()):
        raise DataError(
            f"the teacher gave {what} that cannot be stored (largest magnitude {float(values_XD.abs().max()):g}); "
            "check the teacher's weights, or use fp32 for its forward pass"
        )
    step_X1 = scale_X.float()[..., None]
    code_XD = torch.where(step_X1 > 0, scaled_XD / step_X1, 0).round().clamp(-levels, levels) + levels
    code_XD = code_XD.to(torch.uint8)
    if bits == 4:
        if code_XD.shape[-1] % 2:
            code_XD = torch.cat([code_XD, torch.full_like(code_XD[..., :1], levels)], -1)
        code_XD = code_XD[..., ::2] | code_XD[..., 1::2] << 4
    return scale_X, code_XD


def stored_scales(bytes_XY: Tensor) -> Tensor:
    """Scales fp16 [X, Y / 2] from bytes that lie anywhere in rows of any size."""
    import torch

    return bytes_XY.clone(memory_format=torch.contiguous_format).view(torch.float16)


def dequantise(scale_X: Tensor, code_XY: Tensor, channels: Channels, *, bits: int) -> Tensor:
    """The vectors, fp32 [X, D] on the device of their codes."""
    import torch

    if bits == 4:
        code_XY = torch.stack([code_XY & 15, code_XY >> 4], -1).flatten(-2)[..., : len(channels)]
    scales_D = torch.from_numpy(channel_scales(channels)).to(code_XY.device)
    return (code_XY.float() - _levels(bits)) * scale_X.float()[..., None] * scales_D


def require_codes(
    scale_X: npt.NDArray[np.float16], code_XY: npt.NDArray[np.uint8], width: int, *, bits: int, field: str
) -> None:
    """Raise DataError unless `quantise` could have written these."""
    largest = 2 * _levels(bits)
    if bits != 4:
        good = not (code_XY > largest).any()
    else:
        good = not ((code_XY & 15 > largest).any() or (code_XY >> 4 > largest).any())
        if width % 2:
            good = good and bool((code_XY[..., -1] >> 4 == _levels(bits)).all())
    # As integers, the finite numbers of half precision from 0 on are those below infinity.
    if not good or (scale_X.view(np.uint16) >= 0x7C00).any():
        raise DataError(f"a `{field}` row holds what no encoder writes: the store is damaged; run verify")


def _levels(bits: int) -> int:
    """Codes stand for the whole numbers from minus this to this."""
    return (1 << (bits - 1)) - 1
