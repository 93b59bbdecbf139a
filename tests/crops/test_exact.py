from __future__ import annotations

import hashlib
import math
from statistics import NormalDist

import numpy as np
import pytest

from cskd_pipeline.crops import exact, quantiles


def test_exp_and_log_agree_with_libm_to_the_last_digits() -> None:
    x = np.linspace(-exact.EXP_LIMIT, exact.EXP_LIMIT, 1001)
    assert np.allclose(exact.exp(x), [math.exp(v) for v in x], rtol=1e-14, atol=0)
    assert exact.log(4 / 3) == pytest.approx(math.log(4 / 3), rel=1e-15)


def test_cosine_and_sine_agree_with_libm_to_the_last_digits() -> None:
    for degrees in np.linspace(-45, 45, 181):
        cosine, sine = exact.cosine_and_sine(float(degrees))
        assert cosine == pytest.approx(math.cos(math.radians(degrees)), abs=2e-16)
        assert sine == pytest.approx(math.sin(math.radians(degrees)), abs=2e-16)


def test_words_cover_ranges_without_leaving_them() -> None:
    words = np.array([0, 1, (1 << 31) - 1, 1 << 31, (1 << 32) - 1])
    assert exact.below(words, 15).tolist() == [0, 0, 7, 7, 14]
    assert exact.below(words, 1).tolist() == [0] * 5
    assert exact.uniform(words, 2.0, 4.0)[[0, 3]].tolist() == [2.0, 3.0]
    assert exact.uniform(words, 2.0, 4.0).max() < 4.0
    assert exact.chance(words, 0.5).tolist() == [True, True, True, False, False]
    assert not exact.chance(words, 0.0).any()
    assert exact.chance(words, 1.0).all()


def test_quantile_tables_never_change() -> None:
    tables = [quantiles.normal_table(), *(quantiles.beta_table(alpha) for alpha in quantiles.BETA_ALPHAS)]
    digest = hashlib.sha256(b"".join(table.astype("<i8").tobytes() for table in tables)).hexdigest()
    assert digest == "81c324dee6a9e1ab741f9d92e87a602d0b643d2d65be90aa7be5655845f46c93"


def test_normal_table_is_the_normal_distribution() -> None:
    table = quantiles.normal_table()
    for i in range(0, len(table), 97):
        expected = NormalDist().inv_cdf((i + 0.5) / len(table)) * quantiles.NORMAL_ONE
        assert abs(table[i] - expected) <= 0.51


@pytest.mark.parametrize("alpha", quantiles.BETA_ALPHAS)
def test_beta_tables_are_ascending_symmetric_and_of_the_right_spread(alpha: float) -> None:
    table = quantiles.beta_table(alpha) / quantiles.BETA_ONE
    assert (np.diff(table) >= 0).all()
    assert np.allclose(table + table[::-1], 1)
    assert table.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=2e-3)


def test_tables_are_read_by_the_top_bits_of_a_word() -> None:
    words = np.array([0, (1 << 32) - 1])
    assert quantiles.normal(words).tolist() == quantiles.normal_table()[[0, -1]].tolist()
    assert quantiles.beta(words, 0.8).tolist() == quantiles.beta_table(0.8)[[0, -1]].tolist()
