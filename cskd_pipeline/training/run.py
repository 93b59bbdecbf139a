"""One run: its epochs, evaluations and checkpoints, from wherever it stands to the end.

A checkpoint is the last thing written after an epoch, so whatever a killed process left unfinished is done again,
with the same result: weights, moving average and optimizer of a resumed run equal those of an uninterrupted one bit
for bit (on devices whose kernels are deterministic, with the same number of ranks).
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from cskd_pipeline.batch import TrainBatch
from cskd_pipeline.checkpoint import load_state, save_model, save_state
from cskd_pipeline.errors import DataError, StoppedError, first_line
from cskd_pipeline.evaluation import Score, evaluate
from cskd_pipeline.models.student import Student, plain_state_dict
from cskd_pipeline.objectives import Objective, objective_to_json
from cskd_pipeline.progress import Progress, Watch
from cskd_pipeline.ratio import RATIO_STEPS
from cskd_pipeline.runtime.ranks import any_rank, on_first_rank
from cskd_pipeline.training.config import TrainConfig
from cskd_pipeline.training.learner import Learner, NonFiniteError
from cskd_pipeline.training.run_folder import RunFolder
from cskd_pipeline.training.summary import Position, TrainSummary, improved
from cskd_pipeline.training.trackers import Tracker

DATA_BOUND = 0.2
"""The share of an epoch spent waiting for data above which the user is told what to do."""

EvaluationBatches = Iterable[tuple[Tensor, Tensor]]
Scores = Mapping[str, Mapping[str, Score]]


class EpochSource(Protocol):
    """Micro-batches of one rank, a pure function of (epoch, position): replayed crops, or a test's tensors."""

    @property
    def batches_per_epoch(self) -> int:
        """Micro-batches of this rank in an epoch: the same number on every rank and in every epoch."""

    def batches(self, epoch: int, *, start: int = 0) -> Iterator[TrainBatch]:
        """The micro-batches `start`, `start + 1`, ... of `epoch` (both from 0), on the device of the model."""


@dataclasses.dataclass(slots=True)
class Run:
    """One call of `train`: what its steps share.

    Attributes:
        position: how far the run has come, from its last checkpoint on.
        rows: metrics of the finished epochs.
        trackers: who is told every row (first rank only).
    """

    config: TrainConfig
    objective: Objective
    source: EpochSource
    evaluation: EvaluationBatches | None
    folder: RunFolder
    device: torch.device
    learner: Learner
    updates_per_epoch: int
    stop: Callable[[], bool]
    watch: Watch
    position: Position = dataclasses.field(default_factory=Position)
    rows: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    trackers: list[Tracker] = dataclasses.field(default_factory=list)

    def summary(self) -> TrainSummary:
        """How far the run has come."""
        return TrainSummary(
            folder=str(self.folder.path),
            epochs=self.position.epoch,
            updates=self.position.epoch * self.updates_per_epoch + self.position.updates_done,
            best=self.position.best,
        )

    def restore(self) -> None:
        """Take up the last checkpoint.

        Raises:
            DataError: it is damaged, or is not of this run.
        """
        state = load_state(self.folder.state)
        try:
            self.position = Position.from_json(state.pop("progress"))
            self.learner.load_state_dict(state)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise DataError(
                f"the checkpoint {self.folder.state} does not fit this run ({first_line(error)}); "
                "start again in another run folder"
            ) from error
        self.rows = self.folder.read_metrics(epochs=self.position.epoch)
        self.watch(
            f"resuming {self.folder.path} at epoch {self.position.epoch + 1}, update {self.position.updates_done + 1}"
        )

    def epoch(self) -> None:
        """Go through the epoch at work, from wherever it stands, to its checkpoint."""
        last = self.position.epoch + 1 == self.config.epochs
        self._updates()
        self._require_finite()
        due = self.config.eval_every and (self.position.epoch + 1) % self.config.eval_every == 0
        scores: Scores = {}
        if self.evaluation is not None and (last or due):
            models = self.learner.models
            scores = evaluate(models, self.evaluation, autocast=self.learner.autocast)
        row = self._row(scores)
        head = self.objective.primary_head if self.learner.student.keeps_heads else "cls"
        leader = improved(self.position.best, scores, head=head, epoch=self.position.epoch + 1)
        if leader is not None:
            self.position.best = leader
            self._save_model("best", self.learner.models[leader.weights])
        self.position.next_epoch()
        self.rows.append(row)
        on_first_rank(lambda: self.folder.write_metrics(self.rows))
        if last or self.position.epoch % self.config.checkpoint_every == 0:
            self._save()
        on_first_rank(lambda: self._track(row))
        self.watch(_line(row, epochs=self.config.epochs))
        if row["data_wait_share"] > DATA_BOUND and len(self.rows) == 1:
            self.watch(
                f"training waited {row['data_wait_share']:.0%} of the time for data: give more --workers, or a GPU the "
                "augmentation (--augment device); docs/performance.md says what else helps"
            )
        if not last:
            self._stop_if_asked()

    def _track(self, row: Mapping[str, Any]) -> None:
        for tracker in self.trackers:
            tracker.log(row)

    def _updates(self) -> None:
        """The remaining updates of the epoch at work."""
        position = self.position
        if position.updates_done == self.updates_per_epoch:
            return
        self.learner.student.train()
        start = position.updates_done * self.config.accumulation
        batches = _TimedBatches(self.source.batches(position.epoch, start=start))
        with contextlib.closing(batches):
            while position.updates_done < self.updates_per_epoch:
                began, waited = time.monotonic(), batches.waited_s
                loss_sum, crops = self._update(batches)
                position.updates_done += 1
                position.loss_sum += loss_sum
                position.crops += crops
                position.seconds += time.monotonic() - began
                position.waited_s += batches.waited_s - waited
                self.watch(
                    Progress(
                        f"epoch {position.epoch + 1}/{self.config.epochs}",
                        position.updates_done,
                        self.updates_per_epoch,
                        "update",
                        detail=f"loss {position.loss_sum / position.crops:.4f}",
                    )
                )
                self._stop_if_asked()

    def _update(self, batches: _TimedBatches) -> tuple[float, int]:
        number = self.position.epoch * self.updates_per_epoch + self.position.updates_done
        try:
            return self.learner.update(batches, update=number)
        except NonFiniteError as error:
            at = f"epoch {self.position.epoch + 1}, update {self.position.updates_done + 1} of {self.updates_per_epoch}"
            raise self._diverged(error, at=at) from error
        except StopIteration as error:
            raise DataError(
                f"the data of epoch {self.position.epoch + 1} ended in update {self.position.updates_done + 1} of "
                f"{self.updates_per_epoch}; verify the store"
            ) from error

    def _diverged(self, error: NonFiniteError, *, at: str) -> NonFiniteError:
        kept = f"{self.folder.state} is from before" if self.folder.state.exists() else "no checkpoint was written yet"
        return NonFiniteError(
            f"{at}: {error}; try a lower learning rate, a longer warm-up, --clip-grad 1, or --precision fp32 "
            f"(it is {self.config.precision}); {kept}"
        )

    def _stop_if_asked(self) -> None:
        if any_rank(self.stop(), device=self.device):
            self._require_finite()
            self._save()
            raise StoppedError(
                f"stopped at epoch {self.position.epoch + 1}, update {self.position.updates_done} of "
                f"{self.updates_per_epoch}; run the same command with --resume to continue from there"
            )

    def _require_finite(self) -> None:
        """Raise an error that says when training diverged, unless all weights are finite."""
        try:
            self.learner.require_finite()
        except NonFiniteError as error:
            raise self._diverged(error, at=f"after {self.summary().updates} updates") from error

    def _save(self) -> None:
        """Write the models, and the state last: it is what makes everything before it count."""
        for name, model in self.learner.models.items():
            self._save_model("last" if name == "model" else name, model)
        state = {**self.learner.state_dict(), "progress": self.position.to_json()}
        on_first_rank(lambda: save_state(self.folder.state, state))

    def _save_model(self, kind: str, model: Student) -> None:
        metadata: dict[str, Any] = {
            "student": model.spec.to_json(),
            "objective": objective_to_json(self.objective),
            "epochs": self.position.epoch,
        }
        if kind == "best" and self.position.best is not None:
            metadata |= {"best": self.position.best.to_json(), "epochs": self.position.best.epoch}

        def save() -> None:
            inputs = self.folder.inputs()
            named = {} if inputs is None else {"classes": [*inputs.classes]}
            save_model(self.folder.model(kind), plain_state_dict(model), metadata=metadata | named)

        on_first_rank(save)

    def _row(self, scores: Scores) -> dict[str, Any]:
        position = self.position
        row: dict[str, Any] = {
            "epoch": position.epoch + 1,
            "lr": self.learner.lr,
            "ratio": self.objective.ratio_steps(position.epoch, self.config.epochs) / RATIO_STEPS,
            "train/loss": position.loss_sum / position.crops,
        }
        for weights, by_head in scores.items():
            for head, score in by_head.items():
                row |= {f"{weights}/{head}/{name}": getattr(score, name) for name in ("top1", "top5", "loss")}
        row["crops_per_s"] = position.crops / position.seconds
        row["seconds"] = position.seconds
        row["data_wait_share"] = position.waited_s / position.seconds
        return row


def _line(row: Mapping[str, Any], *, epochs: int) -> str:
    scores = "".join(f"  {name.removesuffix('/top1')} {row[name]:.2f}" for name in row if name.endswith("/top1"))
    return (
        f"epoch {row['epoch']}/{epochs}  loss {row['train/loss']:.4f}{scores}  lr {row['lr']:.2e}  "
        f"{row['crops_per_s']:.0f} crops/s  waiting {row['data_wait_share']:.0%}"
    )


class _TimedBatches:
    """An iterator that adds up how long its user waited."""

    def __init__(self, batches: Iterator[TrainBatch]) -> None:
        self._batches = batches
        self.waited_s = 0.0

    def __iter__(self) -> _TimedBatches:
        return self

    def __next__(self) -> TrainBatch:
        began = time.monotonic()
        try:
            return next(self._batches)
        finally:
            self.waited_s += time.monotonic() - began

    def close(self) -> None:
        """End the iteration now, so that what produces the batches (workers, as a rule) ends too."""
        close = getattr(self._batches, "close", None)
        if close is not None:
            close()
