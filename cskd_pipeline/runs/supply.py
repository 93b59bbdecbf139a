"""What a student trains on: a store's labels, or crops with live teachers' targets or none."""

from __future__ import annotations

import dataclasses
import os
from typing import TYPE_CHECKING, Any

from cskd_pipeline.progress import Watch
from cskd_pipeline.runs.data import open_data
from cskd_pipeline.runs.open import Labels
from cskd_pipeline.runs.open import open as open_labels
from cskd_pipeline.settings import Seeds

if TYPE_CHECKING:
    import torch

    from cskd_pipeline.batch import FeatureShape
    from cskd_pipeline.crops.recipe import CropRecipe
    from cskd_pipeline.data import SampleIndex
    from cskd_pipeline.loading import EvaluationSet
    from cskd_pipeline.models.student import Student
    from cskd_pipeline.models.teacher.live import LiveTargets
    from cskd_pipeline.models.teacher.teacher import Teacher
    from cskd_pipeline.objectives import Objective
    from cskd_pipeline.replay import ReplayLoader
    from cskd_pipeline.runs.train import TrainRequest
    from cskd_pipeline.training.run_folder import RunInputs

CANARY = 0.01


@dataclasses.dataclass(frozen=True, slots=True)
class Supply:
    """What a student trains on: a store's labels, or crops with live teachers' targets or none."""

    index: SampleIndex
    recipe: CropRecipe
    seeds: Seeds
    labels: Labels | None = None
    teachers: tuple[Teacher, ...] = ()

    @property
    def grid(self) -> tuple[int, int] | None:
        """(H, W) of the teacher, the first of two; None without one."""
        taught = [self.labels] if self.labels else self.teachers
        return taught[0].grid if taught else None

    def features(self, objective: Objective) -> FeatureShape | None:
        """Which features there are of what an objective reads; MismatchError where it is not stored."""
        from cskd_pipeline.replay import require_stored

        if self.labels is not None:
            require_stored(self.labels.stores, objective.needs, teachers=objective.teachers)
            return self.labels.features
        return self.teachers[0].features(_token_layers(objective)) if self.teachers else None

    def loader(
        self, request: TrainRequest, objective: Objective, student: Student, *, device: torch.device
    ) -> ReplayLoader:
        """The run's batches."""
        from cskd_pipeline.models.normalisation import normalisation
        from cskd_pipeline.replay import JoinedTargets, NoTargets, ReplayLoader

        same = ("epochs", "batch_size", "repeats", "shuffle", "accumulation", "workers", "augment")
        shared: dict[str, Any] = {name: getattr(request, name) for name in same}
        shared |= {"seeds": self.seeds, "key": request.seed, "device": device}
        if self.labels is not None:
            canary = CANARY if request.canary is None else request.canary
            scratch = request.scratch or os.environ.get("CSKD_SCRATCH")
            return self.labels.loader(objective, student, canary=canary, scratch=scratch, **shared)
        live = [_live(teacher, self.recipe, objective) for teacher in self.teachers]
        provider = JoinedTargets(live, teachers=len(live)) if live else NoTargets()
        mean, std = normalisation(student)
        # A live teacher needs its flags of cuDNN to itself while it runs.
        shared["finish_ahead"] = not live
        return ReplayLoader(self.index, self.recipe, provider, objective, mean=mean, std=std, **shared)

    def inputs(
        self, request: TrainRequest, loader: ReplayLoader, evaluation: EvaluationSet | None, start: str | None
    ) -> RunInputs:
        """What a resumed run must find again."""
        from cskd_pipeline.training.run_folder import RunInputs

        header = None if self.labels is None else self.labels.store.header
        live, second = [*(teacher.spec.to_json() for teacher in self.teachers), None, None][:2]
        return RunInputs(
            targets="stored" if header else "live" if live else "none",
            data={"name": self.index.name, "split": self.index.split, "digest": self.index.digest},
            classes=self.index.classes,
            recipe=self.recipe.to_json(),
            seeds=self.seeds,
            repeats=request.repeats,
            shuffle=loader.shuffle,
            crop_pct=request.crop_pct,
            evaluation=None if evaluation is None else (evaluation.index.split, evaluation.index.digest),
            start=start,
            teacher=header.teacher if header else live,
            encodings=None if self.labels is None else self.labels.encodings,
            second_teacher=second,
        )


def _live(teacher: Teacher, recipe: CropRecipe, objective: Objective) -> LiveTargets:
    """A teacher that answers for every batch, with the features that an objective reads."""
    from cskd_pipeline.models.teacher.live import LiveTargets

    pooled = "features.pooled" in objective.needs
    return LiveTargets(teacher, recipe, pooled=pooled, layers=_token_layers(objective))


def _token_layers(objective: Objective) -> tuple[int, ...]:
    """The teacher's blocks whose patch tokens an objective reads."""
    return objective.layers if "features.tokens" in objective.needs else ()


def find_supply(request: TrainRequest, seeds: Seeds | None, *, device: torch.device, watch: Watch) -> Supply:
    """What a request trains on; `seeds` None takes all complete ones, or without a store a new one for every view."""
    if request.labels:
        labels = open_labels(
            request.labels, data=request.data, data_root=request.data_root, split=request.split, progress=watch
        )
        return Supply(labels.index, labels.recipe, labels.require_seeds(seeds), labels=labels)
    assert request.data is not None
    index = open_data(request.data, split=request.split or "train", root=request.data_root, watch=watch)
    recipe = request.crop_recipe()
    if seeds is None:  # a new view of every image in every epoch
        seeds = tuple(range(request.epochs * max(1, request.repeats)))
    teachers = tuple(
        teacher.load_teacher(index, size=recipe.size, device=device, option=option, watch=watch)
        for option, teacher in request.teachers().items()
    )
    return Supply(index, recipe, seeds, teachers=teachers)
