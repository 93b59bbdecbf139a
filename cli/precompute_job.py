"""From the settings of `precompute` to its job and its store, in whatever process they are needed."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from cskd_pipeline.errors import UsageError

from .label_targets import make_encodings, stored_settings, target_settings
from .options import is_index, make_recipe, make_teacher, open_data, require_teacher

if TYPE_CHECKING:
    from cskd_pipeline.labelling import PrecomputeJob
    from cskd_pipeline.store import StoreWriter

DEFAULT_TARGETS = "hard,soft"


@dataclasses.dataclass(frozen=True, slots=True)
class PrecomputeSettings:
    """What the options of `precompute` of the same names say about labels and where they go; plain values."""

    data: str
    data_root: str | None
    split: str
    out: str
    recipe: str
    recipe_args: tuple[tuple[str, Any], ...]
    size: int
    targets: str | None
    target_args: tuple[tuple[str, Any], ...]
    block: int | None
    teacher: Mapping[str, Any]

    def check(self) -> None:
        """Nothing, if they make sense, as far as can be told without data, teacher and device.

        Raises:
            UsageError: they do not.
            DataError: something that is no store lies at `out`.
        """
        from cskd_pipeline.storage import open_storage
        from cskd_pipeline.store import require_store_or_room

        make_recipe(self.recipe, self.recipe_args, self.size)
        target_settings(self.targets or DEFAULT_TARGETS, self.target_args)
        if self.block is not None and self.block < 2:
            raise UsageError(f"--block must be at least 2, found {self.block}")
        require_store_or_room(open_storage(self.out))

    def anywhere(self) -> Self:
        """The same for a process that has another current folder and other variables."""
        from cskd_pipeline.data import manifest_names
        from cskd_pipeline.data.shards import is_pattern
        from cskd_pipeline.data.source import ROOT_VARIABLE
        from cskd_pipeline.storage import is_address

        def whole(path: str) -> str:
            return path if is_address(path) else str(Path(path).expanduser().absolute())

        is_name = self.data in manifest_names() and not is_index(self.data)
        is_path = "/" in self.data or Path(self.data).exists() or is_pattern(self.data)
        root = self.data_root or os.environ.get(ROOT_VARIABLE)
        weights = self.teacher["teacher_weights"]
        return dataclasses.replace(
            self,
            data=whole(self.data) if is_path and not is_name else self.data,
            data_root=whole(root) if root else None,
            out=whole(self.out),
            teacher={**self.teacher, "teacher_weights": weights and Path(whole(str(weights)))},
        )


def open_job(
    settings: PrecomputeSettings, device: str | None, report: Callable[[str], None]
) -> tuple[PrecomputeJob, StoreWriter]:
    """The job that these settings describe, and its store, made or opened.

    Args:
        settings: of the command line.
        device: as `--device`.
        report: told what was found.

    Raises:
        UsageError, DataError, MismatchError, RetryError: something is wrong with one of them, or with both together.
    """
    from cskd_pipeline.labelling import PrecomputeJob
    from cskd_pipeline.runtime.device import choose_device
    from cskd_pipeline.storage import open_storage
    from cskd_pipeline.store import StoreReader, StoreWriter, is_store

    chosen_device = choose_device(device)
    storage = open_storage(settings.out)
    present = StoreReader(storage) if is_store(storage) else None  # more seeds for a store, which is what it is
    block = settings.block
    if block is None and present is not None:
        block = present.header.block
    stored = target_settings(settings.targets or DEFAULT_TARGETS, settings.target_args)
    if settings.targets is None and not settings.target_args and present is not None:
        stored = stored_settings(present.header.encodings)
    require_teacher({**settings.teacher})
    index = open_data(settings.data, settings.split, settings.data_root)
    classes = len(index.classes)
    teacher = make_teacher({**settings.teacher}, classes=classes, size=settings.size, device=chosen_device)
    forms = make_encodings(stored, positions=teacher.positions, classes=classes)
    recipe = make_recipe(settings.recipe, settings.recipe_args, settings.size)
    job = PrecomputeJob(index, recipe, teacher, forms, block)
    report(
        f"{index.name} {index.split}: {len(index):,} images, {classes} classes; teacher "
        f"{teacher.spec.model} ({teacher.spec.weights[:12]}) on {chosen_device}, "
        f"grid {teacher.grid[0]} x {teacher.grid[1]}"
    )
    return job, StoreWriter(storage, job.header)
