"""A trained student, from a run folder or from a weights file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cskd_pipeline.errors import DataError, MismatchError, UsageError
from cskd_pipeline.progress import Watch, silent
from cskd_pipeline.record import require_choice

if TYPE_CHECKING:
    from cskd_pipeline.models.student import Student


def weights_file(path: Path, *, weights: str) -> Path:
    """The file of a run folder's `weights` (best, last or ema), or the file `path` itself.

    Raises UsageError if there is no such kind, DataError if the file is missing.
    """
    require_choice("--weights", weights, ("best", "last", "ema"))
    if path.is_file():
        return path
    if not path.is_dir():
        raise DataError(f"{path} does not exist; give a run folder, or a weights file")
    file = path / f"{weights}.safetensors"
    if not file.is_file():
        kinds = [kind for kind in ("best", "last", "ema") if (path / f"{kind}.safetensors").is_file()]
        raise DataError(
            f"{path} holds no {file.name}; "
            + (f"choose --weights {' or '.join(kinds)}" if kinds else "give a run folder, or a weights file")
        )
    return file


def open_model(
    file: Path,
    *,
    student: str | None = None,
    args: Mapping[str, Any] | None = None,
    classes: int | None = None,
    watch: Watch = silent,
) -> Student:
    """The student of a weights file, on the CPU; its `size` is the model's own.

    A file that `train` wrote says itself which model it holds; for others `student`, `args` and `classes` do.

    Raises:
        UsageError: it cannot be told which model it is.
        DataError: the file is missing, damaged, or does not fit the model.
        MismatchError: it has another number of classes than asked for.
    """
    from cskd_pipeline.checkpoint import read_metadata
    from cskd_pipeline.models.student import StudentSpec, TokenStudent, create_student
    from cskd_pipeline.models.weights import fit_weights, load_weights

    metadata = read_metadata(file) if file.suffix == ".safetensors" else {}
    if student is None:
        if not isinstance(metadata.get("student"), dict):
            raise UsageError(f"{file} does not say which model it holds; name it with --student (and --student-arg)")
        spec = StudentSpec.from_json(metadata["student"])
        name, arguments, count = spec.model, dict(spec.args), spec.classes
    elif classes is None:
        raise UsageError(f"how many classes {file} has is not known; evaluate it on data")
    else:
        name, arguments, count = student, dict(args or {}), classes
    if classes is not None and classes != count:
        raise MismatchError(f"{file} predicts {count} classes, the data has {classes}; evaluate on its own data")
    built = create_student(name, classes=count, args=arguments)
    if isinstance(built, TokenStudent):  # the third head of CSKD's evaluation
        built = create_student(name, classes=count, args=arguments, grid=(1, 1))
    fit_weights(built.model, load_weights(file, watch=watch), source=file, watch=watch)
    return built


def class_names(file: Path) -> tuple[str, ...] | None:
    """What the classes of a weights file are called, by the run folder that it is in, or by itself; None if neither
    says it.
    """
    from cskd_pipeline.checkpoint import read_metadata
    from cskd_pipeline.training.run_folder import RunFolder

    metadata = read_metadata(file) if file.suffix == ".safetensors" else {}
    inputs = RunFolder(file.parent).inputs() if "classes" not in metadata else None
    named = metadata.get("classes") if inputs is None else inputs.classes
    return tuple(map(str, named)) if isinstance(named, list | tuple) else None


def require_size(student: Student, size: int, *, file: Path) -> None:
    """Raise MismatchError unless the student of a weights file answers when it is tried with images of this size."""
    from cskd_pipeline.models.student import require_answers

    if size == student.size:
        return
    remedy = f"leave out --size, or give {student.size}"
    try:
        require_answers(student, size=size)
    except MismatchError as error:
        takes = f"{student.size} x {student.size}"
        raise MismatchError(f"{file} takes images of {takes} pixels, not of {size} x {size}; {remedy}") from error
    except UsageError as error:
        reason = str(error).rpartition("; ")[0]
        raise MismatchError(f"{file} takes no images of {size} x {size} pixels ({reason}); {remedy}") from error
