"""What an existing store was made of: its teacher, recipe and data, found again to check or mend it."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from cskd_pipeline.crops.recipe import CropRecipe
from cskd_pipeline.errors import DataError, MismatchError, UsageError
from cskd_pipeline.models.teacher.spec import TeacherSpec
from cskd_pipeline.progress import Watch
from cskd_pipeline.record import is_later
from cskd_pipeline.runs.data import find_data, other_classes
from cskd_pipeline.runs.settings import DataSettings, MachineSettings, TeacherSettings, WeightsSettings, require_weights

if TYPE_CHECKING:
    from cskd_pipeline.labelling.job import PrecomputeJob
    from cskd_pipeline.store import StoreHeader, StoreReader


@dataclasses.dataclass(frozen=True, kw_only=True)
class SourceSettings(DataSettings, WeightsSettings, MachineSettings):
    """Where the data and the weights lie that a store was made of, and where the work is done."""


def store_job(reader: StoreReader, source: SourceSettings, *, watch: Watch) -> PrecomputeJob:
    """The job that would make a store again.

    Raises:
        DataError: data or weights are missing, or the store's attributes are damaged.
        MismatchError: data or weights are not those that the store was made of.
    """
    from cskd_pipeline.labelling.job import PrecomputeJob
    from cskd_pipeline.runtime.device import choose_device

    require_weights("--teacher-weights", source.teacher_weights)
    header = reader.header
    spec, recipe = origin(header, where=reader.path)
    device = choose_device(source.device)
    index = find_data(header.data, data=source.data, root=source.data_root, watch=watch)
    settings = TeacherSettings.of(
        teacher=spec.model,
        teacher_weights=source.teacher_weights,
        teacher_entry=source.teacher_entry,
        teacher_args=spec.args,
        teacher_precision=spec.precision,
        channels_last=spec.channels_last,
        compile_teacher=spec.compile,
        chunk=spec.chunk,
        global_source=spec.global_source,
    )
    try:
        teacher = settings.load_teacher(
            index, size=recipe.size, device=device, normalised=(spec.mean, spec.std), rows=spec.rows, watch=watch
        )
    except MismatchError as error:
        if source.teacher_weights is None:
            raise MismatchError(
                f"timm's own weights do not fit {reader.path} ({error}); give --teacher-weights, the file whose digest "
                f"is {spec.weights}"
            ) from error
        raise
    job = PrecomputeJob(index, recipe, teacher, reader.encodings, header.block)
    differing = other_classes(header.data["digest"], index).removeprefix("; ")
    remedy = f"{differing}{'; ' if differing else ''}give the --data and --teacher-weights that it was made of"
    header.require_same(job.header, where=reader.path, remedy=remedy)
    return job


def origin(header: StoreHeader, *, where: str) -> tuple[TeacherSpec, CropRecipe]:
    """The teacher and the recipe that a store's attributes describe; DataError if some are missing or malformed."""
    stated = {"teacher": (header.teacher, TeacherSpec), "recipe": (header.recipe, CropRecipe)}
    missing = [
        f"{part}.{field.name} is missing"
        for part, (values, kind) in stated.items()
        for field in dataclasses.fields(kind)
        if field.name not in values and not is_later(field)
    ]
    try:
        if missing:
            raise UsageError(", ".join(missing))
        return TeacherSpec.from_json(header.teacher), CropRecipe.from_json(header.recipe)
    except (UsageError, TypeError) as error:
        raise DataError(
            f"the attributes of {where} are damaged ({error}); `cskd-pipeline repair {where}` takes them from one of "
            "its seeds"
        ) from error
