"""Normal and beta draws: look-ups in a committed table of quantiles (quantiles.npz, integers only).

The table is part of recipe version 1 and never changes. `experiments/make_quantiles.py` made it.
"""

from __future__ import annotations

import functools
import importlib.resources

import numpy as np
from numpy.typing import NDArray

NORMAL_BITS = 15
NORMAL_ONE = 1 << 13
"""A normal draw is an integer in units of 1/8192; the largest magnitude is 4.17."""
BETA_BITS = 12
BETA_ONE = 1 << 16
"""A beta draw is an integer in units of 1/65536."""
BETA_ALPHAS = (0.1, 0.2, 0.4, 0.8, 1.0)
"""The alphas with a table of beta(alpha, alpha); 1.0 is the uniform distribution."""


@functools.cache
def normal_table() -> NDArray[np.int64]:
    """int64 [32768], ascending: the quantiles of N(0, 1) at (i + 1/2) / 32768, in units of 1/NORMAL_ONE."""
    upper = _load()["normal"].astype(np.int64)
    return _read_only(np.concatenate([-upper[::-1], upper]))


@functools.cache
def beta_table(alpha: float) -> NDArray[np.int64]:
    """int64 [4096], ascending: quantiles of beta(alpha, alpha) at (i + 1/2) / 4096, in units of 1/BETA_ONE."""
    lower = _load()["beta"][BETA_ALPHAS.index(alpha)].astype(np.int64)
    return _read_only(np.concatenate([lower, BETA_ONE - lower[::-1]]))


def normal(words_n: NDArray[np.int64]) -> NDArray[np.int64]:
    """N(0, 1) in units of 1/NORMAL_ONE, from the top 15 bits of each 32-bit word."""
    drawn_n: NDArray[np.int64] = normal_table()[words_n >> (32 - NORMAL_BITS)]
    return drawn_n


def beta(words_n: NDArray[np.int64], alpha: float) -> NDArray[np.int64]:
    """beta(alpha, alpha) in units of 1/BETA_ONE, from the top 12 bits of each 32-bit word."""
    drawn_n: NDArray[np.int64] = beta_table(alpha)[words_n >> (32 - BETA_BITS)]
    return drawn_n


@functools.cache
def _load() -> dict[str, NDArray[np.uint16]]:
    with (
        (importlib.resources.files("cskd_pipeline.crops") / "quantiles.npz").open("rb") as file,
        np.load(file) as arrays,
    ):
        return {name: arrays[name] for name in ("normal", "beta")}


def _read_only(table: NDArray[np.int64]) -> NDArray[np.int64]:
    table.flags.writeable = False
    return table
