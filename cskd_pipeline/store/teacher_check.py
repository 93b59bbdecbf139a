"""How right the teacher was before its labels were made: `teacher_check.json` beside the store's metadata.

It is for people. The store's digest does not cover it, and labels do not depend on it.
"""

from __future__ import annotations

import dataclasses
import json

from cskd_pipeline.errors import CskdError
from cskd_pipeline.record import Record
from cskd_pipeline.storage import Storage
from cskd_pipeline.store import layout


@dataclasses.dataclass(frozen=True, slots=True)
class TeacherCheck(Record):
    """The teacher's scores on images of the data; shares are in 0..1.

    Attributes:
        images: how many images it saw.
        top1: share of their centre crops whose class it named.
        top5: share whose class was among its five best (or all, of fewer).
        confidence: mean probability of the class that it named.
        recipe_crops: how many of the recipe's crops it saw.
        recipe_top1: share of those where it named the class of their larger part.
        recipe_confidence: mean probability of the class that it named.
        normalised: published normalisation -> `top1` if the input were normalised by it.
        warnings: what was said about it.
    """

    images: int
    top1: float
    top5: float
    confidence: float
    recipe_crops: int
    recipe_top1: float
    recipe_confidence: float
    normalised: dict[str, float]
    warnings: tuple[str, ...] = ()

    def __str__(self) -> str:
        """One line."""
        return (
            f"right on {self.top1:.1%} of {self.images:,} centre crops (top-5 {self.top5:.1%}, mean confidence "
            f"{self.confidence:.1%}), on {self.recipe_top1:.1%} of {self.recipe_crops:,} of the recipe's crops"
        )


def read_teacher_check(store: Storage) -> TeacherCheck | None:
    """The check that a store holds; None if it holds none that can be read, for nothing depends on it."""
    try:
        return TeacherCheck.from_json(json.loads(store.read(layout.TEACHER_CHECK, limit=layout.MAX_METADATA_BYTES)))
    except (FileNotFoundError, CskdError, ValueError, TypeError, AttributeError):
        return None


def write_teacher_check(store: Storage, check: TeacherCheck) -> None:
    """Keep a check, unless another process was first; RetryError if the storage refuses."""
    store.create(layout.TEACHER_CHECK, json.dumps(check.to_json(), indent=1).encode())
