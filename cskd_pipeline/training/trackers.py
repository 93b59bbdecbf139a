"""Optional trackers that mirror the metrics of a run; CSV and JSON lines are always written besides."""

from __future__ import annotations

import importlib
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

from cskd_pipeline.errors import UsageError
from cskd_pipeline.record import require_choice
from cskd_pipeline.storage.durable import write_atomic

Row = Mapping[str, float | int | None]


class Tracker(Protocol):
    """Somebody who is told every epoch's row."""

    def log(self, row: Row) -> None:
        """Take note of one epoch."""

    def close(self) -> None:
        """Write out what is pending."""


class TensorBoardTracker:
    """Scalars in `RUN/tensorboard`."""

    def __init__(self, folder: Path, settings: Mapping[str, Any], done: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=done + 1)

    def log(self, row: Row) -> None:
        """Every number of the row as a scalar."""
        for name, value in row.items():
            if name != "epoch" and value is not None:
                self._writer.add_scalar(name, value, row["epoch"])

    def close(self) -> None:
        """Flush and close the event file."""
        self._writer.close()


class WandbTracker:
    """A Weights & Biases run named after the run folder, resumed under the identity kept in `RUN/wandb-id`."""

    def __init__(self, folder: Path, settings: Mapping[str, Any], done: int) -> None:
        import wandb

        self._run = wandb.init(
            project="cskd-pipeline",
            name=folder.name,
            id=_identity(folder / "wandb-id"),
            dir=str(folder),
            config=dict(settings),
            resume="allow",
        )

    def log(self, row: Row) -> None:
        """The row as one step."""
        self._run.log({name: value for name, value in row.items() if value is not None}, step=row["epoch"])

    def close(self) -> None:
        """Finish the run."""
        self._run.finish()


def _identity(file: Path) -> str:
    """The identity in `file`, made up at first: folders of the same name are different runs."""
    if not file.exists():
        write_atomic(file, lambda out: out.write(secrets.token_hex(8).encode()))
    return file.read_text()


TRACKERS: Mapping[str, Callable[[Path, Mapping[str, Any], int], Tracker]] = MappingProxyType(
    {"tensorboard": TensorBoardTracker, "wandb": WandbTracker}
)


def require_trackers(names: tuple[str, ...]) -> None:
    """Raise UsageError if a tracker's name is unknown or its package (an extra of the same name) is not installed."""
    for name in names:
        require_choice("tracker", name, TRACKERS)
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise UsageError(f"{name} is not installed; pip install 'cskd-pipeline[{name}]'") from error


def create_trackers(names: tuple[str, ...], folder: Path, *, settings: Mapping[str, Any], done: int) -> list[Tracker]:
    """Trackers of a run of which `done` epochs are finished; `settings` are shown as its configuration."""
    return [TRACKERS[name](folder, settings, done) for name in names]
