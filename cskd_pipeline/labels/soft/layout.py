"""The fields of a soft row, one after another. `docs/format.md` is normative."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import numpy.typing as npt

ABSENT = 255
"""Slot of a rank that a position does not use."""
RANGE = 16.0
"""In nats: a class is kept if it is at most this far below the likeliest; a tail further below counts as this far."""

Bytes = npt.NDArray[np.uint8]


@dataclasses.dataclass(frozen=True, slots=True)
class SoftLayout:
    """The sizes that a row's fields follow from.

    Attributes:
        positions: P.
        classes: C.
        k: classes kept per position, at most C.
        global_k: K, classes kept of the global output, at most C.
        palette: L, slots in a palette, at most C.
        levels: number of steps in `RANGE`.
    """

    positions: int
    classes: int
    k: int
    global_k: int
    palette: int
    levels: int

    @property
    def step(self) -> float:
        """Nats between neighbouring codes, a power of two."""
        return RANGE / self.levels

    @property
    def widths(self) -> dict[str, int]:
        """Bytes of each field, in order."""
        ranked = {f"slot{rank}": self.positions for rank in range(self.k)}
        steps = {f"step{rank}": self.positions for rank in range(1, self.k)}
        return {
            "shared": 1,
            "others": 1,
            "palette_low": self.palette,
            "palette_high": self.palette,
            "global_tail": 1,
            "global_step": self.global_k - 1,
            "tail": self.positions,
            **ranked,
            **steps,
        }

    @property
    def row_bytes(self) -> int:
        """R, bytes of a row."""
        return sum(self.widths.values())

    @property
    def planes(self) -> list[slice]:
        """Columns of each field of `widths`, in order."""
        fields = self.fields()
        return [fields[name] for name in self.widths]

    def fields(self) -> dict[str, slice]:
        """Columns of each field by name. `slot` and `step` span all ranks."""
        ends = list(itertools.accumulate(self.widths.values(), initial=0))
        fields = {name: slice(*ends[i : i + 2]) for i, name in enumerate(self.widths)}
        fields["slot"] = slice(fields["slot0"].start, fields[f"slot{self.k - 1}"].stop)
        fields["step"] = slice(fields["slot"].stop, self.row_bytes)
        return fields
