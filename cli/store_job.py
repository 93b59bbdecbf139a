"""What would make an existing store again, from the store's own attributes and where its data and weights lie."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from cskd_pipeline.errors import DataError, MismatchError

from .options import data_options, make_teacher, open_data, options

if TYPE_CHECKING:
    from cskd_pipeline.labelling import PrecomputeJob
    from cskd_pipeline.store import StoreReader


source_options = options(
    data_options(required=False),
    click.option(
        "--teacher-weights",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="The teacher's weights (.safetensors, .pth).  [default: timm's pretrained ones]",
    ),
)
"""What a store was made of."""


def store_job(
    reader: StoreReader, data: str, data_root: str | None, teacher_weights: Path | None, *, device: str | None
) -> PrecomputeJob:
    """What would make the store again.

    Raises:
        MismatchError: data or weights are not those that made it.
    """
    from cskd_pipeline.crops.recipe import CropRecipe
    from cskd_pipeline.labelling import PrecomputeJob
    from cskd_pipeline.runtime.device import choose_device

    header = reader.header
    require_attributes(reader)
    spec = header.teacher
    given = {
        "teacher": spec["model"],
        "teacher_args": tuple(spec["args"].items()),
        "teacher_precision": spec["precision"],
        "channels_last": spec["channels_last"],
        "compile_teacher": spec["compile"],
        "chunk": spec["chunk"],
        "global_source": spec["global_source"],
        "teacher_weights": teacher_weights,
    }
    place = choose_device(device)
    index = open_data(data, header.data["split"], data_root)
    recipe = CropRecipe.from_json(header.recipe)
    try:
        teacher = make_teacher(given, classes=header.data["classes"], size=recipe.size, device=place)
    except MismatchError as error:
        if teacher_weights is None:
            raise MismatchError(
                f"timm's own weights do not fit {reader.path} ({error}); give --teacher-weights, the file whose digest "
                f"is {spec['weights']}"
            ) from error
        raise
    job = PrecomputeJob(index, recipe, teacher, reader.encodings, header.block)
    remedy = "give the --data and --teacher-weights that it was made of"
    header.require_same(job.header, where=reader.path, remedy=remedy)
    return job


_TEACHER = ("model", "weights", "args", "precision", "channels_last", "compile", "chunk", "global_source")
_RECIPE = ("name", "version", "size", "key", "scale", "ratio", "flip", "rand_augment", "erase", "mixup", "cutmix")


def require_attributes(reader: StoreReader) -> None:
    """Nothing, if the store says of its teacher and its recipe what is read of them here.

    Raises:
        DataError: it does not.
    """
    header = reader.header
    missing = [f"teacher.{name}" for name in _TEACHER if name not in header.teacher]
    missing += [f"recipe.{name}" for name in (*_RECIPE, "label_smoothing", "group") if name not in header.recipe]
    if missing or not isinstance(header.teacher["args"], dict):
        raise DataError(
            f"the attributes of {reader.path} are damaged ({', '.join(missing) or 'teacher.args'} is missing); "
            f"`cskd-pipeline repair {reader.path}` takes them from one of its seeds"
        )
