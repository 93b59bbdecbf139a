"""A student for the crops and the targets of a run."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cskd_pipeline.models.student import Student
    from cskd_pipeline.objectives import Objective


def student_for(
    name: str,
    objective: Objective | None,
    *,
    size: int,
    classes: int,
    grid: tuple[int, int] | None,
    args: Mapping[str, Any] | None = None,
    drop_path: float = 0.0,
    weights: str | os.PathLike[str] | None = None,
    seed: int = 0,
) -> Student:
    """A student that takes crops of `size` pixels and has the heads that an objective reads.

    A model with a fixed image size is built for `size`, unless `args` name one.

    Arguments and errors are those of `models.student.create_student` and `Labels.student`.
    """
    from cskd_pipeline.models.student import can_be_distilled, create_student, other_size

    arguments = dict(args or {})

    def build(grid: tuple[int, int] | None, distillation: bool, seen: int | None) -> Student:
        return create_student(
            name,
            classes=classes,
            grid=grid,
            size=seen,
            args=arguments,
            drop_path=drop_path,
            distillation=distillation,
            weights=None if weights is None else os.fspath(weights),
            seed=seed,
        )

    plain = build(None, False, None)
    takes = getattr(getattr(plain.model, "patch_embed", None), "img_size", None)
    if takes is not None and tuple(takes) != (size, size):
        if "img_size" in arguments:
            raise other_size(size, takes)
        arguments["img_size"] = size
    dense = can_be_distilled(plain) if objective is None else objective.dense
    distilled = dense if objective is None else bool(objective.needs)
    return build(grid if dense else None, distilled, size)
