"""Numbers and lists as people read them."""

from __future__ import annotations

import math
from collections.abc import Sequence


def percent(share: float) -> str:
    """A share in 0..1: 94.5%; - where there is none."""
    return "-" if math.isnan(share) else f"{100 * share:.1f}%"


def size(count: float) -> str:
    """Bytes in decimal units: 812 bytes, 1.3 MB."""
    for unit, length in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= length:
            return f"{count / length:,.1f} {unit}"
    return f"{count:.0f} bytes"


def duration(seconds: float) -> str:
    """A time: 8.1 s, 42 min, 3.5 h."""
    for unit, length in (("days", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:,.1f} {unit}"
    return f"{seconds:.1f} s"


def counted(count: int, noun: str, plural: str = "") -> str:
    """A number of things: 1 seed, 3,500 images."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def listed(names: Sequence[str]) -> str:
    """Names in a sentence: a, b and c."""
    *others, last = names or ("none",)
    return f"{', '.join(others)} and {last}" if others else last


def shortened(text: str, most: int) -> str:
    """The text, or its beginning where it is longer than `most` characters."""
    return text if len(text) <= most else text[: most - 1].rstrip() + "…"
