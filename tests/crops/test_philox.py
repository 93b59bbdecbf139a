from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from cskd_pipeline.crops.philox import philox4x32, sample_words, stream_key

ONES = 0xFFFFFFFF
# The known-answer vectors of Random123 1.14 for philox4x32-10: counter, key, result.
KNOWN = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((ONES,) * 4, (ONES, ONES), (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


def plain_philox(counter: tuple[int, ...], key: tuple[int, int]) -> tuple[int, ...]:
    """The paper's round with Python's unbounded integers."""
    c, k = list(counter), list(key)
    for _ in range(10):
        p, q = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [q >> 32 ^ c[1] ^ k[0], q & ONES, p >> 32 ^ c[3] ^ k[1], p & ONES]
        k = [(k[0] + 0x9E3779B9) & ONES, (k[1] + 0xBB67AE85) & ONES]
    return tuple(c)


@pytest.mark.parametrize("array", [np.array, torch.tensor])
@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN)
def test_known_answers_of_random123(
    array: Callable[..., Any], counter: tuple[int, ...], key: tuple[int, int], expected: tuple[int, ...]
) -> None:
    words = philox4x32(tuple(array([word]) for word in counter), key)
    assert tuple(int(word[0]) for word in words) == expected


def test_numpy_torch_and_plain_integers_agree_on_many_counters() -> None:
    rng = np.random.default_rng(0)
    counters = rng.integers(0, 1 << 32, (4, 200))
    key = 0xDEADBEEF, 0x12345678
    from_numpy = np.stack(philox4x32(tuple(counters), key))
    from_torch = torch.stack(philox4x32(tuple(torch.tensor(counters)), key)).numpy()
    assert np.array_equal(from_numpy, from_torch)
    assert from_numpy.T.tolist() == [list(plain_philox(tuple(c), key)) for c in counters.T.tolist()]


def test_words_of_scattered_samples_are_those_of_the_range() -> None:
    key = stream_key(version=1, key=0, seed=5)
    scattered = np.array([999, 3, 512, 3, 0])
    whole = np.stack(sample_words(key, np.arange(1000), 2, 1))
    assert np.array_equal(np.stack(sample_words(key, scattered, 2, 1)), whole[:, scattered])


def test_samples_beyond_32_bits_domains_and_blocks_have_their_own_words() -> None:
    key = stream_key(version=1, key=0, seed=0)
    places = [(s, d, b) for s in (0, 1, 1 << 32, 1 << 40) for d in (0, 1) for b in (0, 1)]
    words = {tuple(int(w[0]) for w in sample_words(key, np.array([s]), d, b)) for s, d, b in places}
    assert len(words) == len(places)


def test_every_version_key_and_seed_has_its_own_pinned_stream() -> None:
    keys = {stream_key(version=v, key=k, seed=s) for v in (1, 2) for k in (0, 1, 11) for s in (0, 1, 11)}
    assert len(keys) == 18
    assert stream_key(version=1, key=0, seed=0) == (0x32E8C0E8, 0x242065AA)
