"""Stage 2: train a student on replayed crops, with stored targets, a live teacher's, or none."""

from __future__ import annotations

import contextlib
import dataclasses
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from cskd_pipeline.errors import RetryError, UsageError
from cskd_pipeline.progress import Watch, silent
from cskd_pipeline.runs.data import CROP_PCT, evaluation_set, scored_images
from cskd_pipeline.runs.imports import import_modules
from cskd_pipeline.runs.open import student_for
from cskd_pipeline.runs.settings import (
    AugmentSettings,
    CropSettings,
    DataSettings,
    TeacherSettings,
    TwoTeachersSettings,
    require_weights,
)
from cskd_pipeline.runs.supply import CANARY, Supply, find_supply
from cskd_pipeline.runtime.allocator import keep_freed_memory
from cskd_pipeline.settings import Named, Seeds, kinds, setting, words
from cskd_pipeline.training.config import TrainConfig

if TYPE_CHECKING:
    import torch

    from cskd_pipeline.loading import EvaluationSet
    from cskd_pipeline.models.student import Student
    from cskd_pipeline.objectives import Objective
    from cskd_pipeline.training.summary import TrainSummary


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainRequest(DataSettings, TrainConfig, TwoTeachersSettings, CropSettings, AugmentSettings):
    """Which student to train on what, and how."""

    noun: ClassVar[str] = "train"

    split: str | None = setting(
        None, "Split to train on.", group="data", metavar="NAME", shown="train, or the one that the labels name"
    )
    eval_split: str | None = setting(
        None, "Split to evaluate on, or none.", group="data", metavar="NAME", shown="val, else test"
    )
    labels: tuple[str, ...] = setting(
        (),
        "Label store to train from, a folder or s3://bucket/path; it fixes recipe and size of the crops. Repeated: "
        "stores with other targets of the same crops.",
        group="labels",
        metavar="STORE",
    )
    seeds: Seeds | None = setting(
        None,
        "Augmentation seeds to cycle through, one an epoch: 0:30.",
        group="labels",
        metavar="LIST",
        shown="all complete ones of the store; without a store a new one every epoch",
    )
    repeats: int = setting(1, "Repeated augmentation: seeds shown in an epoch.", group="labels")
    shuffle: Literal["full", "blocks"] | None = setting(
        None,
        "full: any image at any time. blocks: groups of consecutive samples, which reads locally, and decodes an "
        "image once for its repeated crops, which wait in memory.",
        group="labels",
        shown="blocks with --repeats, else full",
    )
    canary: float | None = setting(
        None,
        "Share of replayed crops that are compared with the store's checksums, 0 to 1.",
        group="labels",
        shown=str(CANARY),
        low=0,
        high=1,
    )
    scratch: Path | None = setting(
        None,
        "Folder on a local disk for decoded labels ($CSKD_SCRATCH too).",
        group="machine",
        metavar="DIR",
        shown="/dev/shm if they fill at most half of what is free, else the folder for temporary files",
    )
    student: str = setting(
        "deit_s",
        "deit_ti, deit_s, deit_b, civt_s, rednet26 (or another size), or any of timm; for deit and cskd, one with "
        "patch tokens or a last feature map.",
        group="student",
        metavar="MODEL",
    )
    student_args: Named = setting(
        {},
        "An argument for timm's constructor, such as depth=6; may be repeated. The image size is the crops'.",
        group="student",
        option="student-arg",
    )
    student_weights: Path | None = setting(
        None,
        "What to start from: a file of weights, a folder of timm's save_for_hf, or hf-hub:USER/NAME. Classifiers for "
        "other classes start afresh.",
        group="student",
        metavar="FILE",
        shown="random ones",
    )
    student_entry: str | None = setting(
        None,
        "Where in the file they are, such as state_dict_ema.",
        group="student",
        metavar="NAME",
        shown="a moving average, if there is one",
    )
    objective: str | None = setting(
        None,
        "supervised, deit, cskd, kd, nkd, wttm, dist, dkd, vkd, vitkd or civt.",
        group="objective",
        metavar="NAME",
        shown="cskd with --labels or --teacher, else supervised",
    )
    objective_args: Named = setting(
        {},
        "A setting of the objective, such as mode=soft, schedule=cos, alpha=0.5 or temperature=2; may be repeated.",
        group="objective",
        option="objective-arg",
    )
    preset: str | None = setting(
        None,
        "Published settings as defaults: cskd-ti, cskd-s, cskd-b, deit-ti, deit-s, deit-b, nkd-ti, nkd-s, nkd-b, "
        "vitkd-ti, vitkd-s, vitkd-b, vkd-ti, vkd-s, civt-s.",
        group="objective",
        metavar="NAME",
    )
    out: Path | None = setting(
        None, "Run folder.", group="output", metavar="RUN", shown="a new folder runs/STUDENT-OBJECTIVE-N"
    )
    resume: bool = setting(False, "Go on with the run in --out; begin it if it has not begun.", group="output")
    crop_pct: float = setting(CROP_PCT, "Share of the image that evaluation sees.", group="data", above=0, high=1)
    trackers: tuple[Literal["tensorboard", "wandb"], ...] = setting(
        (), "Where to send the metrics besides metrics.csv; may be repeated.", group="output", option="log"
    )

    @classmethod
    def of(cls, **settings: Any) -> Self:
        """The request with these settings; a preset's come before the defaults of those not given."""
        if settings.get("preset") is not None:
            from cskd_pipeline.presets import find_preset

            preset = find_preset(settings["preset"])
            chosen = {"student": preset.student, "objective": preset.objective["name"], "repeats": preset.repeats}
            if not settings.get("labels"):
                chosen["data"] = preset.data
            settings = {**preset.train, **chosen, **settings}
        return super().of(**settings)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.labels:
            if self.teacher or self.second_teacher:
                option = "--teacher" if self.teacher else "--second-teacher"
                raise UsageError(f"--labels and {option} exclude each other: stored targets, or live teachers")
            self._refuse(("recipe", "recipe_args", "size"), "cannot be given with --labels: the recipe is the store's")
        else:
            self._refuse(("canary",), "is given without --labels, where it has no effect")
            if self.data is None:
                raise UsageError(
                    "no images are given; name them with --data, or give --labels STORE, which knows its own"
                )
        if not self.teacher:
            if self.second_teacher:
                raise UsageError("--second-teacher is given without --teacher; name the first teacher too")
            self._refuse(_TEACHER, "is given without --teacher, where it has no effect")
        if not self.second_teacher:
            self._refuse(_SECOND, "is given without --second-teacher, where it has no effect")
        if self.student_weights is None:
            self._refuse(("student_entry",), "is given without --student-weights, where it has no effect")
        if self.resume and self.out is None:
            raise UsageError("--resume is given without --out; name the run folder to go on with")
        if self.scratch is not None and self.scratch.exists() and not self.scratch.is_dir():
            raise UsageError(f"--scratch {self.scratch} is a file; give a folder")
        self.crop_recipe()

    def _refuse(self, names: tuple[str, ...], why: str) -> None:
        known = kinds(type(self))
        for name in names:
            if getattr(self, name) != known[name].default:
                raise UsageError(f"{known[name].option} {why}; leave it out")

    @property
    def taught(self) -> bool:
        """Whether there are targets of a teacher, stored or live."""
        return bool(self.labels or self.teacher)

    @property
    def method(self) -> str:
        """Name of the objective."""
        return self.objective or ("cskd" if self.taught else "supervised")

    def make_objective(self) -> Objective:
        """The objective, with the preset's settings where it is the preset's; raises UsageError if it cannot be."""
        from cskd_pipeline.objectives import create_objective
        from cskd_pipeline.presets import find_preset

        published = find_preset(self.preset).objective if self.preset else {}
        known = {k: v for k, v in published.items() if k != "name"} if published.get("name") == self.method else {}
        objective = create_objective(self.method, **{**known, **self.objective_args})
        if objective.needs and not self.taught:
            raise UsageError(
                f"objective {self.method} needs a teacher's targets: give --labels STORE, or --teacher NAME"
            )
        if objective.teachers == 2 and self.teacher and not self.second_teacher:
            raise UsageError(
                f"objective {self.method} learns from two teachers, and --teacher is one; give --second-teacher too, "
                "or --labels A --labels B"
            )
        if objective.teachers == 1 and self.second_teacher:
            raise UsageError(
                f"objective {self.method} does not learn from two teachers; leave out --second-teacher, or give "
                "--objective civt"
            )
        return objective


_TEACHER = tuple(field.name for field in dataclasses.fields(TeacherSettings) if field.name != "teacher")
_SECOND = tuple(name for name in kinds(TwoTeachersSettings) if name.startswith("second_teacher_"))


def train(request: TrainRequest | None = None, /, *, progress: Watch = silent, **settings: Any) -> TrainSummary:
    """Train a student to the end of its last epoch, or from where a run with the same settings stopped.

    SIGINT and SIGTERM stop it after the update at work, with a checkpoint. Under torchrun every process makes the
    same call.

    Takes a `TrainRequest`, or its settings by name. `progress` is told how far the run is on the first rank only.

    Raises:
        UsageError: the request makes no sense, or the run folder is taken.
        DataError: images, labels or weights are missing or damaged, or the loss is no longer finite.
        MismatchError: images and labels, or the run to resume and the request, do not belong together.
        StoppedError: stopped by a signal; the checkpoint is written.
        RetryError: storage is full, read-only or out of reach, or a worker was killed.
    """
    request = TrainRequest.given(request, settings)
    keep_freed_memory()
    import_modules(request.imports)
    from cskd_pipeline.models.student import resolve_name
    from cskd_pipeline.models.weights import weights_digest
    from cskd_pipeline.runtime.device import process_group
    from cskd_pipeline.runtime.processors import worker_count
    from cskd_pipeline.runtime.ranks import on_first_rank, rank
    from cskd_pipeline.runtime.stopping import stop_on_signals
    from cskd_pipeline.training.loop import train as run
    from cskd_pipeline.training.run_folder import RunFolder, new_run_folder
    from cskd_pipeline.training.trackers import require_trackers

    resolve_name(request.student)
    require_weights("--student-weights", request.student_weights)
    require_trackers(request.trackers)
    for option, teacher in request.teachers().items():
        teacher.require_teacher(option=option)
    objective = request.make_objective()
    with process_group(request.device) as device, contextlib.ExitStack() as at_end:
        watch = progress if rank() == 0 else silent
        if request.out is None:
            folder = on_first_rank(lambda: new_run_folder(f"{request.student}-{objective.name}"))
            at_end.callback(_remove_if_empty, folder)  # where the run did not come to begin
            watch(f"run folder: {folder}")
        else:
            folder = request.out
            on_first_rank(lambda: RunFolder(folder).require_free(resume=request.resume))
        seeds = request.seeds
        before = RunFolder(folder).inputs() if request.resume else None
        begun_by = RunFolder(folder).settings().get("notes", {}).get("command") if request.resume else None
        if seeds is None and before is not None:  # its own, though the store may have got more since
            seeds = before.seeds
        supply = find_supply(request, seeds, device=device, watch=watch)
        student = student_for(
            request.student,
            objective,
            size=supply.recipe.size,
            classes=len(supply.index.classes),
            grid=supply.grid,
            features=supply.features(objective),
            args=request.student_args,
            drop_path=request.drop_path,
            weights=request.student_weights,
            entry=request.student_entry,
            seed=request.seed,
            watch=watch,
        )
        if student.fresh:
            watch(f"started afresh, for {request.student_weights} does not fit them: {', '.join(student.fresh)}")
        start = None if request.student_weights is None else weights_digest(student.model)
        evaluation = _evaluation(request, supply, student, device=device, watch=watch)
        with (
            supply.loader(request, objective, student, device=device) as loader,
            stop_on_signals() as stop,
            _resumable(),
        ):
            return run(
                request.part(TrainConfig),
                student=student,
                objective=objective,
                source=loader,
                evaluation=evaluation,
                run_folder=folder,
                device=device,
                resume=request.resume,
                stop=stop,
                inputs=supply.inputs(request, loader, evaluation, start),
                notes={
                    "workers": worker_count(request.workers),
                    "preset": request.preset,
                    "command": begun_by or shlex.join(["cskd-pipeline", "train", *words(request)]),
                },
                trackers=request.trackers,
                watch=watch,
            )


def _evaluation(
    request: TrainRequest, supply: Supply, student: Student, *, device: torch.device, watch: Watch
) -> EvaluationSet | None:
    from cskd_pipeline.runtime.processors import worker_count

    if request.eval_split == "none":
        return None
    index = scored_images(
        supply.index, data=request.data, root=request.data_root, split=request.eval_split, watch=watch
    )
    if index is None:
        watch("there is no val or test split: the student is not evaluated")
        return None
    return evaluation_set(
        student,
        index,
        size=supply.recipe.size,
        crop_pct=request.crop_pct,
        device=device,
        workers=min(4, worker_count(request.workers)),
        batch=256,
    )


def _remove_if_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):
        folder.rmdir()
        folder.parent.rmdir()


@contextlib.contextmanager
def _resumable() -> Iterator[None]:
    """Have errors that say "try again" say how: the run folder exists by now."""
    try:
        yield
    except RetryError as error:
        hint = "" if "--resume" in str(error) else "; then give the same command with --resume"
        raise RetryError(f"{error}{hint}") from error
