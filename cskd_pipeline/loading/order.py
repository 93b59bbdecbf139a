"""Which crops make up a batch: pure functions of (order seed, epoch), with mix partners side by side.

Mix partners share a batch, so what is shuffled are pairs (or single crops, where the recipe does not mix). Repeated
augmentation (Hoffer et al., CVPR 2020; Berman et al., arXiv 1902.05509) is an order, not a recipe: an epoch of R
repeats shows R seeds of every R-th group of samples, and partners never leave their group.

A full shuffle asks for any image at any time. A shuffle by blocks goes through whole groups, which are consecutive
samples, a batch's worth of them at a time: reading is local, and the R crops of an image are due within few batches.
The canonical order being random, a group is as random a choice of images as any.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cskd_pipeline.crops.philox import Key, sample_words
from cskd_pipeline.crops.recipe import CropRecipe
from cskd_pipeline.errors import UsageError


class Batch(NamedTuple):
    """Crops to load.

    Attributes:
        seeds_B, samples_B: int64, the crops.
        partners_B: int64, the samples that they are mixed with, see `CropRecipe.partners`; they must be in the batch.
    """

    seeds_B: NDArray[np.int64]
    samples_B: NDArray[np.int64]
    partners_B: NDArray[np.int64]

    def part(self, start: int, stop: int) -> Batch:
        """Rows start..stop-1."""
        return Batch(*(column[start:stop] for column in self))


Shuffle = Literal["full", "blocks"]

OPEN_GROUPS = 8
"""A shuffle by blocks has so many groups under way: as many ranks can each have groups of their own, whose images they
alone decode. More would have more crops wait in memory."""

_GROUPS, _UNITS, _LANES = 0, 1, 2


@dataclasses.dataclass(frozen=True, slots=True)
class EpochOrder:
    """The order of a training run.

    Attributes:
        recipe: decides the partners.
        seeds: stored seeds, cycled through: epoch e shows seeds e*R, ..., e*R + R-1 (modulo their number).
        total: S.
        batch: global batch size, even where the recipe mixes.
        repeats: R, 1 for none.
        key: of the shuffle.
        shuffle: "full", or by "blocks".

    Raises:
        UsageError: the numbers do not fit together.
    """

    recipe: CropRecipe
    seeds: tuple[int, ...]
    total: int
    batch: int
    repeats: int = 1
    key: int = 0
    shuffle: Shuffle = "full"

    def __post_init__(self) -> None:
        if not self.seeds:
            raise UsageError("there is no seed to train on; name at least one")
        if self.repeats < 1 or self.repeats > len(self.seeds):
            raise UsageError(
                f"--repeats {self.repeats} shows that many seeds in an epoch, {len(self.seeds)} are available; "
                "store more seeds or repeat less"
            )
        if self.batch < 1 or (self.recipe.mixes and self.batch % 2):
            raise UsageError(f"the batch size must be even, for mix partners share a batch; found {self.batch}")
        if self.batches == 0:
            raise UsageError(
                f"a batch of {self.batch} is larger than an epoch of {self._least_crops()} crops; use a smaller batch"
            )

    @property
    def batches(self) -> int:
        """Full batches per epoch, the same for every epoch; left-over crops are not shown."""
        return self._least_crops() // self.batch

    @property
    def ahead(self) -> int:
        """Number of successive batches that nearly always hold all repeated crops of an image."""
        if self.shuffle == "full" or self.repeats == 1:
            return 1
        return -(-OPEN_GROUPS * self.recipe.group * self.repeats // self.batch) + 1

    def epoch_seeds(self, epoch: int) -> tuple[int, ...]:
        """The seeds that an epoch shows."""
        first = epoch * self.repeats
        return tuple(self.seeds[(first + turn) % len(self.seeds)] for turn in range(self.repeats))

    def crops(self, epoch: int) -> Batch:
        """All crops of an epoch in order; the first `batches * batch` of them are used."""
        key = order_key(self.key, epoch)
        samples = self._epoch_samples(key)
        firsts, seconds, seeds = [], [], []
        for seed in self.epoch_seeds(epoch):
            first, second = _units(self.recipe, seed, samples, self.total)
            firsts.append(first)
            seconds.append(second)
            seeds.append(np.full(len(first), seed, np.int64))
        first, second, seed_of = np.concatenate(firsts), np.concatenate(seconds), np.concatenate(seeds)
        shuffled = permutation(key, _UNITS, len(first))
        if self.recipe.mixes:  # crops without a partner come last, so that no pair straddles two batches
            paired = first != second
            shuffled = np.concatenate([shuffled[paired[shuffled]], shuffled[~paired[shuffled]]])
        order = self._in_lanes(shuffled, first // self.recipe.group, key) if self.shuffle == "blocks" else shuffled
        return _flatten(first[order], second[order], seed_of[order])

    def _in_lanes(self, shuffled_U: NDArray[np.int64], group_U: NDArray[np.int64], key: Key) -> NDArray[np.int64]:
        """The units by lanes, which go through one whole group after another and take turns unit by unit.

        Lanes begin new groups at different times, so that every batch needs about as many images that were not seen
        before. In a batch the units of a lane are side by side, where one rank finds them. What does not fill the lanes
        comes last, as it was shuffled.
        """
        unit = 2 if self.recipe.mixes else 1
        per_group = self.recipe.group * self.repeats // unit
        whole = np.unique(group_U[(group_U + 1) * self.recipe.group <= self.total])
        lanes = min(OPEN_GROUPS, len(whole))
        if not lanes:
            return shuffled_U
        rounds = len(whole) // lanes
        place_G = np.full(int(group_U.max()) + 1, -1)
        place_G[whole[permutation(key, _LANES, len(whole))][: rounds * lanes]] = np.arange(rounds * lanes)
        place_U = place_G[group_U[shuffled_U]]
        sorted_U = shuffled_U[np.argsort(place_U, kind="stable")]
        rest, filling = np.split(sorted_U, [int((place_U < 0).sum())])
        lanes_LN = filling.reshape(lanes, rounds * per_group)
        lanes_LN = np.stack([np.roll(row, -(n * per_group // lanes)) for n, row in enumerate(lanes_LN)])
        number_N = np.arange(lanes_LN.size)
        by_lane = np.lexsort((number_N % lanes, number_N // (self.batch // unit)))
        return np.concatenate([lanes_LN.T.reshape(-1)[by_lane], rest])

    def _groups(self) -> tuple[int, int]:
        groups = -(-self.total // self.recipe.group)
        return groups, -(-groups // self.repeats)

    def _epoch_samples(self, key: Key) -> NDArray[np.int64]:
        if self.repeats == 1:
            return np.arange(self.total)
        groups, chosen = self._groups()
        picked = np.sort(permutation(key, _GROUPS, groups)[:chosen])
        samples = (picked[:, None] * self.recipe.group + np.arange(self.recipe.group)).reshape(-1)
        return samples[samples < self.total]

    def _least_crops(self) -> int:
        if self.repeats == 1:
            return self.total
        groups, chosen = self._groups()
        missing = groups * self.recipe.group - self.total  # the last group may be partial, and chosen or not
        return (chosen * self.recipe.group - missing) * self.repeats


def block_batches(recipe: CropRecipe, seed: int, rows: range, *, total: int, batch: int) -> Iterator[Batch]:
    """The crops of one block of a seed, partners side by side, `batch` (even) at a time."""
    return sample_batches(recipe, seed, np.arange(rows.start, rows.stop), total=total, batch=batch)


def sample_batches(
    recipe: CropRecipe, seed: int, samples_n: NDArray[np.int64], *, total: int, batch: int
) -> Iterator[Batch]:
    """The crops of these samples (whose mix partners are among them), partners side by side, `batch` at a time."""
    first, second = _units(recipe, seed, samples_n, total)
    order = np.argsort(first == second, kind="stable")  # single crops last: no pair straddles two batches
    crops = _flatten(first[order], second[order], np.full(len(first), seed, np.int64))
    for start in range(0, len(crops.samples_B), batch):
        yield crops.part(start, start + batch)


def order_key(key: int, epoch: int) -> Key:
    """The Philox key of an epoch's shuffle."""
    name = f"cskd-pipeline/order/{key}/{epoch}"
    bits = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little")
    return bits & 0xFFFFFFFF, bits >> 32


def permutation(key: Key, domain: int, size: int) -> NDArray[np.int64]:
    """A permutation of 0..size-1, int64, the same on every machine."""
    low, high, _, _ = sample_words(key, np.arange(size, dtype=np.int64), domain)
    return np.argsort(high.astype(np.uint64) << np.uint64(32) | low.astype(np.uint64), kind="stable")


def _units(
    recipe: CropRecipe, seed: int, samples: NDArray[np.int64], total: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pairs, each once (first < second), and single crops (first == second)."""
    partners = recipe.partners(seed, samples, total=total)
    once = partners >= samples
    return samples[once], partners[once]


def _flatten(first: NDArray[np.int64], second: NDArray[np.int64], seeds: NDArray[np.int64]) -> Batch:
    both = np.stack([first, second], axis=1).reshape(-1)
    keep = np.stack([np.ones(len(first), bool), first != second], axis=1).reshape(-1)
    partners = np.stack([second, first], axis=1).reshape(-1)
    return Batch(np.repeat(seeds, 2)[keep], both[keep], partners[keep])
