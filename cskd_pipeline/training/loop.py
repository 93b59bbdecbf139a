"""The one call that trains: checks everything that can be checked, then runs the epochs."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from cskd_pipeline.errors import DataError, UsageError
from cskd_pipeline.models.student import Student, require_answers
from cskd_pipeline.objectives import Objective, objective_to_json
from cskd_pipeline.progress import Watch, silent
from cskd_pipeline.runtime.ranks import gather_from_ranks, on_first_rank, rank, world_size
from cskd_pipeline.runtime.stopping import never
from cskd_pipeline.training.config import TrainConfig
from cskd_pipeline.training.learner import Learner
from cskd_pipeline.training.run import EpochSource, EvaluationBatches, Run
from cskd_pipeline.training.run_folder import RunFolder, RunInputs
from cskd_pipeline.training.summary import TrainSummary
from cskd_pipeline.training.trackers import create_trackers, require_trackers


def train(
    config: TrainConfig,
    *,
    student: Student,
    objective: Objective,
    source: EpochSource,
    run_folder: Path,
    device: torch.device,
    evaluation: EvaluationBatches | None = None,
    resume: bool = False,
    stop: Callable[[], bool] = never,
    inputs: RunInputs | None = None,
    notes: Mapping[str, Any] | None = None,
    trackers: tuple[str, ...] = (),
    watch: Watch = silent,
) -> TrainSummary:
    """Train `student` to the end of the last epoch; files go to `run_folder` (see `run_folder`).

    Every rank calls it with the same arguments, but for its own slices of `source` and `evaluation`.

    Args:
        student: changed in place; `create_student` gives all ranks the same one.
        source: micro-batches of `config.micro_batch(ranks)` crops; those beyond the last full update of an epoch are
            not asked for.
        run_folder: a new folder, or with `resume` that of the run to go on with.
        device: where `source` and `evaluation` put their tensors.
        evaluation: this rank's (pixels_B3SS fp32, labels_B int64), iterated over in every evaluation.
        resume: go on from the last checkpoint, or start if there is none.
        stop: asked after every update; True on any rank ends the run with a checkpoint.
        inputs: what the run trains on; a resumed run must give the same.
        notes: JSON values to record that may change when the run is resumed (workers, versions).
        trackers: names of `trackers.TRACKERS` to mirror the metrics to.
        watch: told how far the run is, on the first rank only.

    Raises:
        UsageError: the folder is taken, settings contradict each other, or the student cannot learn from micro-batches
            of that size.
        MismatchError: the run to resume was started with other settings.
        DataError: the loss is not finite, the checkpoint is damaged, the source ends early, or the ranks do not see
            the same run folder.
        StoppedError: `stop` asked for it; the checkpoint is written.
        RetryError: storage is full or read-only; the last checkpoint is intact.
    """
    if config.drop_path != student.spec.drop_path:
        raise UsageError(f"drop path is {config.drop_path} in the settings, {student.spec.drop_path} in the student")
    require_answers(student, size=student.size, batch=min(2, config.micro_batch(world_size())), training=True)
    updates_per_epoch = source.batches_per_epoch // config.accumulation
    if not updates_per_epoch:
        raise UsageError(
            f"an epoch has {source.batches_per_epoch} micro-batches a rank, fewer than the accumulation of "
            f"{config.accumulation}; lower the batch size"
        )
    require_trackers(trackers)
    learner = Learner(student, objective, config, updates_per_epoch=updates_per_epoch, device=device)
    folder = RunFolder(Path(run_folder))
    settings = {
        "version": 1,
        "student": student.spec.to_json(),
        "objective": objective_to_json(objective),
        "train": config.to_json(),
        "extra": {} if inputs is None else inputs.to_json(),  # the key of run folders since 0.1.0
        "notes": {**(notes or {}), "device": str(device), "ranks": world_size()},
    }
    with contextlib.ExitStack() as held:
        on_first_rank(lambda: held.enter_context(folder.open(settings, resume=resume)))
        run = Run(
            config=config,
            objective=objective,
            source=source,
            evaluation=evaluation,
            folder=folder,
            device=device,
            learner=learner,
            updates_per_epoch=updates_per_epoch,
            stop=stop,
            watch=watch if rank() == 0 else silent,
        )
        restored = folder.state.exists()
        if restored:
            run.restore()
        _require_same_start(run, restored=restored)
        if run.position.epoch == config.epochs:
            run.watch(f"{folder.path} is finished: {config.epochs} of {config.epochs} epochs")
            return dataclasses.replace(run.summary(), already_finished=True)

        def track() -> None:
            run.trackers = create_trackers(trackers, folder.path, settings=settings, done=run.position.epoch)
            for tracker in run.trackers:
                held.callback(tracker.close)

        on_first_rank(track)
        while run.position.epoch < config.epochs:
            run.epoch()
        return run.summary()


def _require_same_start(run: Run, *, restored: bool) -> None:
    """Raise DataError, on every rank, unless all found the same checkpoint, or all found none."""
    starts = gather_from_ranks((restored, run.position.epoch, run.position.updates_done))
    if len(set(starts)) > 1:
        found = ", ".join(
            f"rank {number} {f'at epoch {epoch + 1}, update {done + 1}' if there else 'without a checkpoint'}"
            for number, (there, epoch, done) in enumerate(starts)
        )
        raise DataError(
            f"the run folder {run.folder.path} is not the same on all nodes: {found}; put it on shared storage"
        )
