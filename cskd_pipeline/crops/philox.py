"""Philox4x32-10, a counter-based generator: random words as a pure function of (key, counter).

Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3", SC 2011. Written once for NumPy int64
arrays and torch int64 tensors on any device; every int64 holds a word, 0 <= word < 2^32.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

Words = TypeVar("Words", "NDArray[np.int64]", "Tensor")
Key = tuple[int, int]
FourWords = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]

WORD = 1 << 32
_MASK = WORD - 1
_HALF = 0xFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10


def philox4x32(counter: tuple[Words, Words, Words, Words], key: Key) -> tuple[Words, Words, Words, Words]:
    """Four independent 32-bit words for each counter.

    Args:
        counter: four int64 arrays (or tensors) of 32-bit words that broadcast against each other.
        key: two 32-bit words.
    """
    word0, word1, word2, word3 = counter
    key0, key1 = key
    for _ in range(_ROUNDS):
        high0, low0 = _multiply(word0, _MULTIPLIERS[0])
        high1, low1 = _multiply(word2, _MULTIPLIERS[1])
        word0, word1, word2, word3 = high1 ^ word1 ^ key0, low1, high0 ^ word3 ^ key1, low0
        key0, key1 = (key0 + _KEY_STEPS[0]) & _MASK, (key1 + _KEY_STEPS[1]) & _MASK
    return word0, word1, word2, word3


def stream_key(*, version: int, key: int, seed: int) -> Key:
    """The generator's key for one seed of one recipe stream: 64 bits of a cryptographic hash."""
    name = f"cskd-pipeline/crops/{version}/{key}/{seed}"
    bits = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little")
    return bits & _MASK, bits >> 32


def sample_words(key: Key, samples_n: NDArray[np.int64], domain: int, block: int = 0) -> FourWords:
    """Four words for each sample, int64 [n] each, independent across domains and blocks.

    Args:
        key: see `stream_key`.
        samples_n: int64 [n], sample indices (any order, any subset).
        domain: what the words are for, one of the table in docs/recipe.md.
        block: which four words within that domain, below 65536.
    """
    where = np.full_like(samples_n, domain << 16 | block)
    return philox4x32((samples_n & _MASK, samples_n >> 32, where, np.zeros_like(samples_n)), key)


def _multiply(word: Words, multiplier: int) -> tuple[Words, Words]:
    """High and low 32 bits of a 32 x 32 bit product, via 16-bit halves, because int64 cannot hold all 64."""
    low = word * (multiplier & _HALF)
    high = word * (multiplier >> 16) + (low >> 16)
    return high >> 16, ((high & _HALF) << 16) | (low & _HALF)
