"""The way seeds are written on the command line."""

from __future__ import annotations

import re

from cskd_pipeline.errors import UsageError

MAX_SEEDS = 100_000
"""A request for more is taken for a slip: a seed costs a pass of the teacher over the data."""


def parse_seeds(text: str) -> list[int]:
    """The seeds named by "7", "0:30" (30 not included) or a list such as "0:10,20,30:40", ascending.

    Raises:
        UsageError: the text is malformed, or names no seed.
    """
    seeds: set[int] = set()
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,9})\s*(?::\s*(\d{1,9})\s*)?", part)
        if match is None:
            raise UsageError(f"--seeds {text!r} is malformed at {part!r}; write 7, 0:30 (30 not included) or 0:10,20")
        first = int(match[1])
        stop = int(match[2]) if match[2] is not None else first + 1
        if stop <= first:
            raise UsageError(f"--seeds {text!r} names no seed in {part.strip()!r}: the end is not included")
        if stop - first > MAX_SEEDS:
            raise UsageError(f"--seeds {text!r} names {stop - first:,} seeds, at most {MAX_SEEDS:,} are taken at once")
        seeds.update(range(first, stop))
        if len(seeds) > MAX_SEEDS:
            raise UsageError(f"--seeds names more than {MAX_SEEDS:,} seeds; ask for fewer at once")
    return sorted(seeds)


def format_seeds(seeds: list[int]) -> str:
    """ "0:3,7" for [0, 1, 2, 7], which `parse_seeds` reads; the seeds ascend."""
    parts: list[list[int]] = []
    for seed in seeds:
        if parts and parts[-1][1] == seed:
            parts[-1][1] += 1
        else:
            parts.append([seed, seed + 1])
    return ",".join(str(a) if b == a + 1 else f"{a}:{b}" for a, b in parts)
