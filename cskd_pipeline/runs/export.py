"""Write a trained student as a file, or a folder, for plain timm."""

from __future__ import annotations

import dataclasses
import io
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cskd_pipeline.errors import UsageError
from cskd_pipeline.runs.data import CROP_PCT

if TYPE_CHECKING:
    from torch import Tensor

    from cskd_pipeline.models.student import Student


@dataclasses.dataclass(frozen=True, slots=True)
class Exported:
    """A file or folder for timm.

    Attributes:
        file: where it is.
        parameters: how many it holds.
        call: the call of timm.create_model that builds the student from it, after the import that it needs, if any.
        averages: the heads whose mean timm's model gives; none where it has one head.
    """

    file: Path
    parameters: int
    call: str
    averages: tuple[str, ...]


def export(
    run: str | os.PathLike[str],
    file: str | os.PathLike[str],
    *,
    weights: str = "best",
    hub: bool = False,
    imports: Sequence[str] = (),
) -> Exported:
    """Write the student of a run as a file, or a folder, that plain timm reads.

    Args:
        run: a run folder, or a weights file that `train` wrote.
        file: a new .safetensors or .pth file; with `hub` a new folder, which `timm.create_model("local-dir:FOLDER",
            pretrained=True)` loads, as it does from the Hugging Face hub once it is uploaded: configuration, weights
            and a model card.
        weights: of a run folder: best, last or ema.
        hub: write such a folder.
        imports: modules that register the student's model with timm.

    Raises:
        UsageError: the file has another ending, its folder does not exist, or the folder is not empty.
        DataError: weights are missing or damaged.
        RetryError: storage is full or read-only.
    """
    from cskd_pipeline.models.student import parameter_count, plain_state_dict
    from cskd_pipeline.runs.imports import import_modules
    from cskd_pipeline.runs.trained_model import class_names, open_model, weights_file

    path = Path(file)
    if not hub and path.suffix not in (".safetensors", ".pth"):
        raise UsageError(f"the file must end in .safetensors or .pth, found {path.name!r}; or give --hub for a folder")
    if hub and path.exists() and not (path.is_dir() and next(path.iterdir(), None) is None):
        raise UsageError(f"{path} exists and is no empty folder; give a new one")
    if not path.absolute().parent.is_dir():
        raise UsageError(f"the folder {path.parent} does not exist; make it first")
    import_modules(imports)
    source = weights_file(Path(run), weights=weights)
    student, names = open_model(source), class_names(source)
    state = plain_state_dict(student)
    heads = tuple(head for head in ("head", "head_dist", "head_conv", "head_inv") if f"{head}.weight" in state)
    averages = heads if len(heads) > 1 else ()
    # Models that this package adds to timm's must be imported; they need nothing else of it.
    module = type(student.model).__module__
    before = [module] if module.startswith("cskd_pipeline.") else [*imports]
    if hub:
        call = f'timm.create_model("local-dir:{file}", pretrained=True)'
        _write_folder(path, student, source, names=names, before=before, averages=averages)
    else:
        _write_file(path, state, student, names=names)
        arguments = "".join(f", {key}={value!r}" for key, value in student.spec.args.items())
        call = (
            f"timm.create_model({student.spec.model!r}, num_classes={student.spec.classes}{arguments}, "
            f"checkpoint_path={str(file)!r})"
        )
    imported = "".join(f"import {name}; " for name in before)
    return Exported(path, parameter_count(student.model), imported + call, averages)


def _write_file(path: Path, state: dict[str, Tensor], student: Student, *, names: Sequence[str] | None) -> None:
    import torch

    from cskd_pipeline.checkpoint import save_model
    from cskd_pipeline.storage.durable import write_atomic

    if path.suffix == ".pth":
        buffer = io.BytesIO()  # torch hides the cause of a failing write
        torch.save(state, buffer)
        write_atomic(path, lambda handle: handle.write(buffer.getbuffer()))
    else:
        known = {} if names is None else {"classes": [*names]}
        save_model(path, state, metadata={"student": student.spec.to_json(), **known})


def _write_folder(
    path: Path,
    student: Student,
    source: Path,
    *,
    names: Sequence[str] | None,
    before: Sequence[str],
    averages: Sequence[str],
) -> None:
    """As timm's `save_for_hf` does, with a card; all of it or, where the storage refuses, nothing."""
    from cskd_pipeline.models.hub_model import save_hub_model
    from cskd_pipeline.publish import model_card
    from cskd_pipeline.storage.durable import writing
    from cskd_pipeline.training.run_folder import RunFolder

    run = RunFolder(source.parent)
    settings = run.settings()
    trained = settings.get("extra", {})
    size = trained.get("recipe", {}).get("size", student.size)
    card = model_card(
        architecture=student.spec.model,
        load="\n".join(
            [
                *(f"import {name}" for name in ("timm", *before)),
                "",
                'model = timm.create_model("hf-hub:USER/NAME", pretrained=True)  # or local-dir:FOLDER',
            ]
        ),
        settings=settings,
        rows=run.read_metrics(epochs=settings.get("train", {}).get("epochs", 0)) if settings else [],
        heads=averages,
    )
    with writing(path), tempfile.TemporaryDirectory(dir=path.absolute().parent, prefix=f".{path.name}-") as staged:
        folder = Path(staged) / "model"
        crop_pct = trained.get("crop_pct", CROP_PCT)
        spec = student.spec
        save_hub_model(
            student.model, folder, args=spec.args, classes=spec.classes, names=names, size=size, crop_pct=crop_pct
        )
        (folder / "README.md").write_text(card)
        if path.exists():
            path.rmdir()
        folder.rename(path)
