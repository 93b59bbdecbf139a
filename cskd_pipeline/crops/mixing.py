"""Mutual pairs and how they are mixed.

mixup: Zhang et al., arXiv 1710.09412. CutMix: Yun et al., arXiv 1905.04899 (box and corrected lambda as in timm).
Within a fixed group of samples a permutation keyed by the seed makes pairs. Both members share one lambda or one box,
so each image is decoded once, and a pair depends on neither the batch nor the number of processes.
"""

from __future__ import annotations

import enum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cskd_pipeline.crops import exact, quantiles
from cskd_pipeline.crops.philox import Key, sample_words

DOMAIN_MIX = 4
DOMAIN_PAIR = 5
LAM_ONE = quantiles.BETA_ONE
"""A lambda is an integer in units of 1/65536, so that lambda and 1 - lambda are both exact in fp32."""
_SAMPLES_AT_ONCE = 1 << 14

Ints = NDArray[np.int64]


class Mix(enum.IntEnum):
    """How a crop is combined with its partner's."""

    NONE = 0
    MIXUP = 1
    CUTMIX = 2


class Mixes(NamedTuple):
    """int64 [n] each: the kind (of `Mix`), lambda in units of 1/LAM_ONE, and the pasted box in crop pixels."""

    kind: Ints
    lam: Ints
    top: Ints
    left: Ints
    bottom: Ints
    right: Ints


def draw_partners(key: Key, samples_n: Ints, *, total: int, group: int) -> Ints:
    """int64 [n], the mix partner of each sample: mutual, in the same group, itself for the odd one out.

    Groups are `group` consecutive samples of the canonical order; the last one may be shorter. Within a group, the
    samples are sorted by a keyed hash and paired: first with second, third with fourth and so on.
    """
    groups_G, row_n = np.unique(samples_n // group, return_inverse=True)
    partners_Gg = np.empty((len(groups_G), group), np.int64)
    step = max(1, _SAMPLES_AT_ONCE // group)
    for start in range(0, len(groups_G), step):
        partners_Gg[start : start + step] = _group_partners(
            key, groups_G[start : start + step], total=total, group=group
        )
    return partners_Gg[row_n, samples_n % group]


def _group_partners(key: Key, groups_G: Ints, *, total: int, group: int) -> Ints:
    members_Gg = groups_G[:, None] * group + np.arange(group)
    high, low, _, _ = sample_words(key, members_Gg, DOMAIN_PAIR)
    # 63 bits sort as int64; samples beyond the end of the data set sort last and are never partners.
    hash_Gg = np.where(members_Gg < total, high << 31 | low >> 1, np.iinfo(np.int64).max)
    order_Gg = np.argsort(hash_Gg, axis=1, kind="stable")
    sorted_Gg = np.take_along_axis(members_Gg, order_Gg, axis=1)
    swapped_Gg = sorted_Gg[:, np.arange(group) ^ 1]
    swapped_Gg = np.where(swapped_Gg < total, swapped_Gg, sorted_Gg)
    partners_Gg = np.empty_like(members_Gg)
    np.put_along_axis(partners_Gg, order_Gg, swapped_Gg, axis=1)
    return partners_Gg


def draw_mixes(
    key: Key,
    samples_n: Ints,
    partners_n: Ints,
    *,
    mixup: float,
    cutmix: float,
    switch: float,
    size: int,
) -> Mixes:
    """How each pair is mixed; equal for both members.

    Args:
        key: the seed's key.
        samples_n: int64 [n], sample indices.
        partners_n: int64 [n], see `draw_partners`; a sample that is its own partner is not mixed.
        mixup: alpha of mixup's beta distribution, 0 for never.
        cutmix: alpha of CutMix's beta distribution, 0 for never.
        switch: probability of CutMix where both are on.
        size: the crop's side in pixels.
    """
    alone_n = samples_n == partners_n
    if not (mixup or cutmix):
        alone_n = np.ones_like(alone_n)
    kind, strength, row, column = sample_words(key, np.minimum(samples_n, partners_n), DOMAIN_MIX)
    cut_n = exact.chance(kind, switch if mixup and cutmix else float(cutmix > 0)) & ~alone_n
    kind_n = np.where(alone_n, Mix.NONE, np.where(cut_n, Mix.CUTMIX, Mix.MIXUP))
    mixup_lam_n = quantiles.beta(strength, mixup) if mixup else LAM_ONE
    cutmix_lam_n = quantiles.beta(strength, cutmix) if cutmix else np.full_like(strength, LAM_ONE)

    side_n = (size * np.sqrt(1.0 - cutmix_lam_n / LAM_ONE)).astype(np.int64)
    y, x = exact.below(row, size), exact.below(column, size)
    top, bottom = np.maximum(y - side_n // 2, 0), np.minimum(y + (side_n + 1) // 2, size)
    left, right = np.maximum(x - side_n // 2, 0), np.minimum(x + (side_n + 1) // 2, size)
    # The box was cut at the crop's border, so lambda becomes the share of pixels kept, to the nearest step.
    kept_n = size * size - (bottom - top) * (right - left)
    area_lam_n = (kept_n * (2 * LAM_ONE) + size * size) // (2 * size * size)

    lam_n = np.where(alone_n, LAM_ONE, np.where(cut_n, area_lam_n, mixup_lam_n))
    return Mixes(kind_n, lam_n, *(np.where(cut_n, edge, 0) for edge in (top, left, bottom, right)))
