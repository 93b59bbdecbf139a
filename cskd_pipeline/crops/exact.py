"""Numbers from random words by integer or exactly rounded arithmetic only.

libm implementations round `exp` and `sin` differently, and NumPy picks its own by instruction set. IEEE 754 fixes
+ - * / and square root to the last bit, so boxes and angles are computed from those alone.
"""

from __future__ import annotations

import decimal
import math

import numpy as np
from numpy.typing import NDArray

from cskd_pipeline.crops.philox import WORD

Floats = NDArray[np.floating]
"""Always fp64; NumPy's type annotations lose that across a ufunc."""

_EXP_HALVINGS = 3
_EXP_TERMS = 16
EXP_LIMIT = 3.0
"""The largest |argument| of `exp`."""


def uniform(words_n: NDArray[np.int64], low: float, high: float) -> Floats:
    """fp64 in [low, high), one for each 32-bit word."""
    return low + (high - low) * (words_n * (1.0 / WORD))


def below(words_n: NDArray[np.int64], bounds_n: NDArray[np.int64] | int) -> NDArray[np.int64]:
    """Integers in [0, bound), by multiply and shift, for bounds below 2^31 (bias below bound / 2^32)."""
    return (words_n * bounds_n) >> 32


def chance(words_n: NDArray[np.int64], probability: float) -> NDArray[np.bool_]:
    """True with the given probability: never at 0, always at 1."""
    return words_n < int(probability * WORD)


def rounded(values_n: Floats) -> NDArray[np.int64]:
    """The nearest integers, halves to even, as Python's `round`."""
    return np.rint(values_n).astype(np.int64)


def log(value: float) -> float:
    """The natural logarithm, correctly rounded to 40 decimal digits and then to fp64."""
    return float(decimal.Context(prec=40).ln(decimal.Decimal(value)))


def exp(values_n: Floats) -> Floats:
    """e^value for |value| <= EXP_LIMIT: 17 terms of the Taylor series at value / 8, squared three times."""
    reduced_n = values_n / float(1 << _EXP_HALVINGS)
    power_n = np.ones_like(reduced_n)
    for term in range(_EXP_TERMS, 0, -1):
        power_n = 1.0 + power_n * reduced_n / term
    for _ in range(_EXP_HALVINGS):
        power_n = power_n * power_n
    return power_n


def cosine_and_sine(degrees: float) -> tuple[float, float]:
    """(cos, sin) of an angle of at most 45 degrees, by Taylor series in fp64."""
    x = degrees * (math.pi / 180.0)
    square = x * x
    cosine = sine = 1.0
    for n in range(18, 0, -2):
        cosine = 1.0 - cosine * square / (n * (n - 1))
        sine = 1.0 - sine * square / (n * (n + 1))
    return cosine, x * sine
