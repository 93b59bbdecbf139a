"""A run folder: its settings, its metrics and its checkpoints.

RUN/config.json          what rebuilds the run; compared when it is resumed
RUN/metrics.csv, .jsonl  one row an epoch
RUN/last.pt              resumable state
RUN/last.safetensors     weights under timm's names; likewise ema and best
RUN/tensorboard, wandb*  of the trackers, where asked for
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import fcntl
import io
import itertools
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from cskd_pipeline.errors import DataError, MismatchError, RetryError, UsageError
from cskd_pipeline.record import Record
from cskd_pipeline.storage.durable import write_atomic, writing

FREE = frozenset({"train.eval_every", "train.checkpoint_every", "extra.data.name"})
"""Settings that a resumed run may change; so is everything under "notes"."""


@dataclasses.dataclass(frozen=True, slots=True)
class RunInputs(Record):
    """The data, crops and targets of a run, which a resumed run must find unchanged.

    Attributes:
        targets: "stored" ones, those of "live" teachers, or "none".
        data: name, split and digest of the images. The digest identifies them; the name may change.
        classes: names of the classes, by label.
        recipe: fields of the crop recipe.
        seeds: augmentation seeds that the epochs cycle through.
        repeats: seeds shown in an epoch.
        shuffle: "full" or "blocks".
        crop_pct: share of the image that evaluation sees.
        evaluation: split and digest of the images that are evaluated on, None without evaluation.
        start: digest of the weights that the student started from, None for random ones.
        teacher: attributes of the teacher, None without one.
        encodings: settings of the store's encodings, None without a store.
        second_teacher: attributes of a second live teacher, None without one.
    """

    targets: Literal["stored", "live", "none"]
    data: Mapping[str, str]
    classes: tuple[str, ...]
    recipe: Mapping[str, Any]
    seeds: tuple[int, ...]
    repeats: int
    shuffle: str
    crop_pct: float
    evaluation: tuple[str, str] | None = None
    start: str | None = None
    teacher: Mapping[str, Any] | None = None
    encodings: Mapping[str, Any] | None = None
    second_teacher: Mapping[str, Any] | None = None


class RunFolder:
    """The files of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.state = path / "last.pt"

    def model(self, kind: str) -> Path:
        """The weights file of "last", "ema" or "best"."""
        return self.path / f"{kind}.safetensors"

    def require_free(self, *, resume: bool) -> None:
        """Raise UsageError if the folder holds a run and `resume` is False, or if it holds something else."""
        if (self.path / "config.json").exists():
            if not resume:
                raise UsageError(f"{self.path} holds a run already; add --resume to go on, or give another folder")
        elif self.path.exists() and not self.path.is_dir():
            raise UsageError(f"{self.path} is a file; give a folder for the run")
        elif self.path.is_dir() and any(file.suffix != ".writing" for file in self.path.iterdir()):
            raise UsageError(f"{self.path} is not empty and holds no run; give another folder")

    @contextlib.contextmanager
    def open(self, settings: Mapping[str, Any], *, resume: bool) -> Iterator[None]:
        """Create the folder and record `settings`, or check that they are those of the run to resume; then hold it.

        Resuming a run that never started starts it, so that one command serves both. While it is held nobody else can
        open it, where the storage has locks; they go with the process, however it ends. Raises MismatchError if the run
        to resume has other settings, RetryError if the folder cannot be written or is held, and what `require_free`
        raises.
        """
        settings = json.loads(json.dumps(settings))
        config = self.path / "config.json"
        self.require_free(resume=resume)
        if config.exists():
            _compare(_read_json(config), settings, folder=self.path)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RetryError(f"cannot create {self.path} ({error.strerror}); check where it should be") from error
        text = json.dumps(settings, indent=2, sort_keys=True) + "\n"
        with _alone(self.path):
            write_atomic(config, lambda file: file.write(text.encode()))
            yield

    def inputs(self) -> RunInputs | None:
        """What the run trains on; None where none was started, or by a caller with batches of its own.

        Raises DataError if the stored settings are damaged.
        """
        stored = self.settings().get("extra")
        try:
            return RunInputs.from_json(stored) if stored else None
        except (UsageError, TypeError, AttributeError) as error:
            raise DataError(f"{self.path / 'config.json'} is damaged ({error}); start another run folder") from error

    def settings(self) -> dict[str, Any]:
        """What the run was started with; empty where none was. Raises DataError if it is damaged."""
        config = self.path / "config.json"
        return _read_json(config) if config.exists() else {}

    def read_metrics(self, *, epochs: int) -> list[dict[str, Any]]:
        """The rows of the first `epochs` epochs; what a killed run wrote beyond its last checkpoint is left out."""
        path = self.path / "metrics.jsonl"
        if not path.exists():
            return []
        try:
            rows = [json.loads(line) for line in path.read_text().splitlines()]
        except ValueError as error:
            raise DataError(f"{path} is damaged ({error}); move it away to go on without the earlier rows") from error
        return [row for row in rows if row["epoch"] <= epochs]

    def write_metrics(self, rows: list[dict[str, Any]]) -> None:
        """Replace both metrics files; the CSV has a column for every name that occurs."""
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        write_atomic(self.path / "metrics.jsonl", lambda file: file.write(lines.encode()))
        table = io.StringIO()
        writer = csv.DictWriter(table, list(dict.fromkeys(name for row in rows for name in row)))
        writer.writeheader()
        writer.writerows(rows)
        write_atomic(self.path / "metrics.csv", lambda file: file.write(table.getvalue().encode()))


def new_run_folder(name: str, *, parent: Path = Path("runs")) -> Path:
    """A new, empty folder `parent/NAME-N`, with the first N from 1 on that is free; RetryError if none can be made."""
    with writing(parent):
        for number in itertools.count(1):
            folder = parent / f"{name}-{number}"
            with contextlib.suppress(FileExistsError):
                folder.mkdir(parents=True)
                return folder
    raise AssertionError


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold a lock on the folder; RetryError if another process does, as the ranks of a killed launcher may."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some network storage has no locks
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise RetryError(
                    f"another process trains in {folder} (the ranks of a torchrun that was killed go on without it); "
                    "stop it or wait for its end, then run the same command again"
                ) from error
        yield
    finally:
        os.close(descriptor)


def leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every setting with its dotted name: train.lr, student.args.depth, ..."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _compare(stored: Mapping[str, Any], given: Mapping[str, Any], *, folder: Path) -> None:
    old, new = dict(leaves(stored)), dict(leaves(given))
    differences = [
        f"{name} is {_shown(old.get(name))} there and {_shown(new.get(name))} here"
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name) and name not in FREE and not name.startswith("notes.")
    ]
    if differences:
        raise MismatchError(
            f"{folder} was started with other settings: {'; '.join(differences)}; give the same, or another --out"
        )


def _shown(value: Any) -> str:
    """The value, or where it is long (class names, seeds) its ends."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:50]} ... {text[-20:]}"


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(path.read_text())
    except ValueError as error:
        raise DataError(f"{path} is damaged ({error}); start again in another run folder") from error
    return content
