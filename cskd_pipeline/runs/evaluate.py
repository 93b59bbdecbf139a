"""Score a trained student."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from cskd_pipeline.errors import UsageError
from cskd_pipeline.progress import Watch, silent
from cskd_pipeline.runs.data import CROP_PCT, evaluation_set, find_data, open_data, require_same_classes, split_to_score
from cskd_pipeline.runs.imports import import_modules
from cskd_pipeline.runs.settings import DataSettings, MachineSettings
from cskd_pipeline.runtime.allocator import keep_freed_memory
from cskd_pipeline.settings import Named, setting

if TYPE_CHECKING:
    import os

    from cskd_pipeline.data import SampleIndex
    from cskd_pipeline.evaluation import Score
    from cskd_pipeline.training.run_folder import RunInputs


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluateRequest(DataSettings, MachineSettings):
    """What to score a model on, and how."""

    noun: ClassVar[str] = "eval"

    split: str | None = setting(
        None, "Split to score.", group="data", metavar="NAME", shown="the run's, or val, else test"
    )
    weights: str = setting("best", "Which weights of a run folder: best, last or ema.", group="student", metavar="KIND")
    student: str | None = setting(
        None, "Model of a weights file that does not say it: a name of timm.", group="student", metavar="MODEL"
    )
    student_args: Named = setting(
        {},
        "With --student, an argument for timm's constructor, such as img_size=64; may be repeated.",
        group="student",
        option="student-arg",
    )
    size: int | None = setting(
        None, "Side of the images in pixels.", group="data", shown="the run's, or the model's", low=1
    )
    crop_pct: float | None = setting(
        None, "Share of the image that the model sees.", group="data", shown="the run's, or 0.875", above=0, high=1
    )
    batch_size: int = setting(256, "Images per forward pass.", group="machine", low=1)


@dataclasses.dataclass(frozen=True, slots=True)
class Evaluated:
    """The scores of a model.

    Attributes:
        model: the file that its weights are from.
        data: name of the images.
        split: theirs.
        images: how many there are.
        scores: top-1 and top-5 in per cent and the mean loss, by the way of combining the student's heads.
    """

    model: Path
    data: str
    split: str
    images: int
    scores: Mapping[str, Score]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        rows = {head: {"top1": s.top1, "top5": s.top5, "loss": s.loss} for head, s in self.scores.items()}
        return {"model": str(self.model), "split": self.split, "images": self.images, "scores": rows}


def evaluate(
    model: str | os.PathLike[str],
    request: EvaluateRequest | None = None,
    /,
    *,
    progress: Watch = silent,
    **settings: Any,
) -> Evaluated:
    """Score a run folder's student, or one in a weights file, for every way of combining its heads.

    Takes an `EvaluateRequest`, or its settings by name.

    Raises:
        UsageError: it cannot be told which model it is, or which images to score it on.
        DataError: weights or images are missing or damaged.
        MismatchError: the classes are not those that the model was trained on, or the model takes images of another
            size.
    """
    request = EvaluateRequest.given(request, settings)
    keep_freed_memory()
    import_modules(request.imports)
    from cskd_pipeline.evaluation import evaluate as run
    from cskd_pipeline.runs.trained_model import class_names, open_model, require_size, weights_file
    from cskd_pipeline.runtime.device import choose_device
    from cskd_pipeline.runtime.processors import worker_count
    from cskd_pipeline.training.run_folder import RunFolder

    file = weights_file(Path(model), weights=request.weights)
    device = choose_device(request.device)
    inputs = RunFolder(file.parent).inputs()
    index = _images(request, inputs, watch=progress)
    student = open_model(
        file, student=request.student, args=request.student_args, classes=len(index.classes), watch=progress
    )
    own = inputs is not None and inputs.evaluation is not None and inputs.evaluation[1] == index.digest
    if not own and (names := class_names(file)) is not None:
        require_same_classes(names, index, known_by=str(file))
    size = request.size or (student.size if inputs is None else inputs.recipe["size"])
    require_size(student, size, file=file)
    images = evaluation_set(
        student,
        index,
        size=size,
        crop_pct=request.crop_pct or (CROP_PCT if inputs is None else inputs.crop_pct),
        device=device,
        batch=request.batch_size,
        workers=worker_count(request.workers),
    )
    scores = run({"model": student.to(device)}, images)["model"]
    return Evaluated(file, index.name, index.split, len(index), scores)


def _images(request: EvaluateRequest, inputs: RunInputs | None, *, watch: Watch) -> SampleIndex:
    """The images that the request names, or those that the run was evaluated on."""
    from cskd_pipeline.data import is_index, open_index

    if request.data is not None:
        own = open_index(Path(request.data)).split if is_index(request.data) else None
        split = request.split or own or split_to_score(request.data, request.data_root)
        if split is None:
            raise UsageError(f"{request.data} has neither a val nor a test split; name one with --split")
        return open_data(request.data, split=split, root=request.data_root, watch=watch)
    if inputs is None or inputs.evaluation is None or request.split not in (None, inputs.evaluation[0]):
        raise UsageError("which images to score is not known; name them with --data")
    split, digest = inputs.evaluation
    about = {**inputs.data, "split": split, "digest": digest, "classes": len(inputs.classes)}
    return find_data(about, root=request.data_root, watch=watch)
