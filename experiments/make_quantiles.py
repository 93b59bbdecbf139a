"""Make cskd_pipeline/crops/quantiles.npz, the integer quantile tables of recipe version 1.

The committed file is normative and never changes; this script records where it came from. It needs SciPy, which
the package itself does not, and prints by how much, if at all, the result differs from the committed file.

    python experiments/make_quantiles.py OUT.npz
"""

from __future__ import annotations

import sys
from statistics import NormalDist

import numpy as np
from scipy.special import betaincinv

from cskd_pipeline.crops.quantiles import (
    BETA_ALPHAS,
    BETA_BITS,
    BETA_ONE,
    NORMAL_BITS,
    NORMAL_ONE,
    beta_table,
    normal_table,
)


def main(out: str) -> None:
    size = 1 << NORMAL_BITS
    upper = [round(NormalDist().inv_cdf((i + 0.5) / size) * NORMAL_ONE) for i in range(size // 2, size)]
    points = (np.arange(1 << (BETA_BITS - 1)) + 0.5) / (1 << BETA_BITS)
    lower = [np.rint(betaincinv(alpha, alpha, points) * BETA_ONE) for alpha in BETA_ALPHAS]
    normal, beta = np.array(upper, "<u2"), np.array(lower, "<u2")
    np.savez(out, normal=normal, beta=beta)
    try:
        same_normal = np.abs(normal_table()[size // 2 :] - normal).max()
        same_beta = max(
            np.abs(beta_table(alpha)[: len(points)] - row).max() for alpha, row in zip(BETA_ALPHAS, beta, strict=True)
        )
        print(f"largest difference from the committed table: normal {same_normal}, beta {same_beta}")
    except FileNotFoundError:
        print("no committed table to compare with")


if __name__ == "__main__":
    main(sys.argv[1])
