"""The two checks that configuration records make on their fields, with bound and value in the error."""

from __future__ import annotations

from collections.abc import Iterable

from cskd_pipeline.errors import UsageError, nearest


def require_choice(name: str, value: str, choices: Iterable[str]) -> None:
    """Nothing, if `value` is one of `choices`.

    Raises:
        UsageError: it is not.
    """
    known = list(choices)
    if value not in known:
        raise UsageError(f"{name} is {value!r}{nearest(str(value), known)}; choose one of {', '.join(known)}")


def require_range(
    name: str,
    value: float,
    *,
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    whole: bool = False,
) -> None:
    """Nothing, if low <= value <= high and above < value (bounds that are None do not bind).

    Raises:
        UsageError: the value lies outside, is no number, or is no whole number where one is wanted.
    """
    if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
        raise UsageError(f"{name} must be a {'whole number' if whole else 'number'}, found {value!r}")
    bounds = [
        (low is None or value >= low, f"at least {low}"),
        (above is None or value > above, f"greater than {above}"),
        (high is None or value <= high, f"at most {high}"),
    ]
    if not all(holds for holds, _ in bounds):
        broken = " and ".join(text for holds, text in bounds if not holds)
        raise UsageError(f"{name} must be {broken}, found {value}")
