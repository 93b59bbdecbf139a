"""What this project promises of its labels, and whether a run kept it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

IMAGENET = 1_281_167
THOUSAND = "synthetic-1000-"
Row = dict[str, Any]


@dataclasses.dataclass(frozen=True, slots=True)
class Goal:
    """A promise and the worst that was measured.

    Attributes:
        promise: in words.
        measured: the worst value, with its unit.
        met: whether that is good enough.
    """

    promise: str
    measured: str
    met: bool


def judge(rows: Sequence[Row], opening: Sequence[Row]) -> list[Goal]:
    """All goals that these rows say something about."""
    largest = max((row["records"] for row in rows), default=0)
    thousand = [row for row in rows if row["set"].startswith(THOUSAND)]
    hard, soft = ([row for row in thousand if row["encoding"] == name] for name in ("hard", "soft"))
    everywhere = [row for row in rows if row["encoding"] == "hard"]
    decode_s = [IMAGENET / row["decode_crops_s"] for row in everywhere if row["records"] == largest]
    batch_ms = [512e3 / row["gather_crops_s"] for row in soft]
    many_ms = [row["open_ms"] for row in opening if row["seeds"] > 1]
    return [
        *_at_most(110, values(hard, "bytes_per_crop"), ".1f", "`hard`, 1,000 classes: at most 110 bytes a crop"),
        *_at_least(1, values(everywhere, "agreement"), ".6f", "`hard`: agreement 1 on every set"),
        *_at_least(25e3, values(hard, "encode_crops_s"), ",.0f", "`hard`, 1,000 classes: encode 25,000 crops/s"),
        *_at_most(3, decode_s, ".2f", f"`hard`: decode {IMAGENET:,} crops in 3 s (rate at {largest:,} records)"),
        *_at_least(5e6, values(everywhere, "gather_crops_s"), ",.0f", "`hard`: gather 5,000,000 crops/s"),
        *_at_most(450, values(soft, "bytes_per_crop"), ".1f", "`soft`, 1,000 classes: at most 450 bytes a crop"),
        *_at_most(1, list(excess(rows)), ".3f", "`soft`: KL at most that of `topk10-fp16` (ratio)"),
        *_at_most(1, batch_ms, ".2f", "`soft`, 1,000 classes: gather 512 crops in 1 ms"),
        *_at_most(100, many_ms, ".1f", "open a store of many seeds in 100 ms"),
    ]


def values(rows: Sequence[Row], name: str) -> list[float]:
    """What was measured."""
    return [row[name] for row in rows if row[name] is not None]


def excess(rows: Sequence[Row]) -> Iterator[float]:
    """KL of `soft` by that of `topk10-fp16`, for every set."""
    others = {(row["set"], row["records"]): row["kl"] for row in rows if row["encoding"] == "topk10-fp16"}
    for row in rows:
        if row["encoding"] == "soft" and row["kl"] is not None and others.get((row["set"], row["records"])):
            yield row["kl"] / others[row["set"], row["records"]]


def _at_most(bound: float, found: Sequence[float], spec: str, promise: str) -> Iterator[Goal]:
    if found:
        yield Goal(promise, format(max(found), spec), max(found) <= bound)


def _at_least(bound: float, found: Sequence[float], spec: str, promise: str) -> Iterator[Goal]:
    if found:
        yield Goal(promise, format(min(found), spec), min(found) >= bound)
