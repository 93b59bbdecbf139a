"""Everything about a teacher that its output depends on; kept in the store."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from cskd_pipeline.errors import UsageError
from cskd_pipeline.record import Record, later, require_choice, require_range

PRECISIONS = ("fp32", "bf16", "fp16")
GLOBAL_SOURCES = ("mean", "head")


@dataclasses.dataclass(frozen=True, slots=True)
class TeacherSpec(Record):
    """How the teacher is built and run.

    Attributes:
        model: timm's name with its tag, aliases resolved.
        weights: digest of the parameters' names and bytes.
        classes: C.
        args: further keyword arguments of timm.create_model.
        mean, std: the teacher's input normalisation, per channel in 0..1.
        precision: "fp32", or the autocast dtype "bf16" or "fp16".
        chunk: crops per forward pass. Short batches are padded to it, so that a crop's logits do not depend on how
            crops were batched.
        global_source: "mean" (of the dense logits over positions, as CSKD published) or "head" (the model's own).
        rows: by class of the data the output of the published classifier that it is; None where the two are the same.
    """

    model: str
    weights: str
    classes: int
    args: dict[str, Any]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    precision: str = "fp32"
    channels_last: bool = False
    compile: bool = False
    chunk: int = 64
    global_source: str = "mean"
    rows: tuple[int, ...] | None = later()

    def __post_init__(self) -> None:
        if not isinstance(self.args, dict):
            raise UsageError(f"a teacher's arguments have names, found {self.args!r}")
        for name, values in (("mean", self.mean), ("std", self.std)):
            if not (isinstance(values, tuple) and len(values) == 3 and all(map(_is_number, values))):
                raise UsageError(f"a teacher's {name} has a number for each of three channels, found {values!r}")
        require_choice("teacher precision", self.precision, PRECISIONS)
        require_choice("global source", self.global_source, GLOBAL_SOURCES)
        require_range("teacher chunk", self.chunk, low=2)
        if self.rows is not None:
            if not isinstance(self.rows, tuple) or len(self.rows) != self.classes:
                raise UsageError(f"a teacher with rows has one for each of {self.classes} classes")
            for row in self.rows:
                require_range("teacher row", row, low=0, whole=True)
        if self.chunk % 2:
            raise UsageError(f"teacher chunk must be even, for mix partners share a chunk; found {self.chunk}")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
