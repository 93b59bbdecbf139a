"""Which RandAugment operations a crop gets, and how strong. Cubuk et al., arXiv 1909.13719, timm's variant.

Each of n layers picks one of fifteen operations and applies it with probability 1/2, at a magnitude of
m + mstd * N(0, 1), clipped to 0..10, with a random sign.
"""

from __future__ import annotations

import dataclasses
import re

import numpy as np
from numpy.typing import NDArray

from cskd_pipeline.crops import exact, quantiles
from cskd_pipeline.crops.op_arguments import OPS
from cskd_pipeline.crops.philox import Key, sample_words
from cskd_pipeline.errors import UsageError

DOMAIN = 2
PROBABILITY = 0.5
MAX_LAYERS = 4
NO_OP = 255
MAGNITUDE_ONE = 1 << 11
"""A magnitude is an integer in units of 1/2048."""
MAX_MAGNITUDE = 10

_PATTERN = re.compile(r"rand-m(?P<m>\d+)(-n(?P<n>\d+))?(-mstd(?P<mstd>\d+(\.\d+)?))?-inc1")


@dataclasses.dataclass(frozen=True, slots=True)
class RandAugment:
    """The parsed form of a string such as `rand-m9-mstd0.5-inc1`."""

    magnitude: int
    magnitude_std: float
    layers: int

    @classmethod
    def parse(cls, text: str) -> RandAugment:
        """The policy that `text` names.

        Raises:
            UsageError: the text is not `rand-mM[-nN][-mstdS]-inc1` with M <= 10, 1 <= N <= 4, S <= 10.
        """
        match = _PATTERN.fullmatch(text)
        if match is None:
            raise UsageError(
                f"rand_augment {text!r} is not supported: write rand-mM[-nN][-mstdS]-inc1, as in 'rand-m9-mstd0.5-inc1'"
            )
        policy = cls(int(match["m"]), float(match["mstd"] or 0), int(match["n"] or 2))
        if policy.magnitude > MAX_MAGNITUDE or policy.magnitude_std > MAX_MAGNITUDE:
            raise UsageError(f"rand_augment {text!r}: m and mstd must be at most {MAX_MAGNITUDE}")
        if not 1 <= policy.layers <= MAX_LAYERS:
            raise UsageError(f"rand_augment {text!r}: n must be 1 to {MAX_LAYERS}")
        return policy


def draw_layers(
    key: Key, samples_n: NDArray[np.int64], policy: RandAugment
) -> tuple[NDArray[np.uint8], NDArray[np.int16]]:
    """Operations and signed magnitudes of each sample's layers, in order of application.

    Returns:
        uint8 [n, MAX_LAYERS], indices into `op_arguments.OPS` or NO_OP, and int16 [n, MAX_LAYERS], magnitudes in
        units of 1/MAGNITUDE_ONE whose sign is the operation's direction (0 where there is no operation).
    """
    op_nL = np.full((len(samples_n), MAX_LAYERS), NO_OP, np.uint8)
    magnitude_nL = np.zeros((len(samples_n), MAX_LAYERS), np.int16)
    step = policy.magnitude_std * (MAGNITUDE_ONE / quantiles.NORMAL_ONE)
    for layer in range(policy.layers):
        choice, applied, deviation, sign = sample_words(key, samples_n, DOMAIN, layer)
        applied_n = exact.chance(applied, PROBABILITY)
        strength_n = policy.magnitude * MAGNITUDE_ONE + exact.rounded(quantiles.normal(deviation) * step)
        strength_n = np.clip(strength_n, 0, MAX_MAGNITUDE * MAGNITUDE_ONE)
        strength_n = np.where(exact.chance(sign, 0.5), -strength_n, strength_n)
        op_nL[:, layer] = np.where(applied_n, exact.below(choice, len(OPS)), NO_OP)
        magnitude_nL[:, layer] = np.where(applied_n, strength_n, 0)
    return op_nL, magnitude_nL
