"""A run folder as far as it can be read, be the run finished, at work, empty or damaged."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cskd_pipeline.errors import DataError
from cskd_pipeline.training.run_folder import RunFolder

Row = Mapping[str, float]
"""The metrics of an epoch that are finite numbers."""


@dataclasses.dataclass(frozen=True, slots=True)
class Run:
    """What a run folder says.

    Attributes:
        name: the folder's.
        settings: `config.json`; empty where it cannot be read.
        rows: an epoch each, ascending.
        unread: what could not be read, a sentence each.
    """

    name: str
    settings: Mapping[str, Any]
    rows: list[Row]
    unread: list[str]

    @property
    def epochs(self) -> int | None:
        """Of the whole run; None where the settings do not say."""
        epochs = self.part("train").get("epochs")
        return epochs if isinstance(epochs, int) else None

    @property
    def finished(self) -> bool:
        """Whether the last epoch is done."""
        return bool(self.rows) and self.epochs is not None and self.rows[-1]["epoch"] >= self.epochs

    @property
    def command(self) -> str | None:
        """The command line that gives this run again, where `train` noted it."""
        command = self.part("notes").get("command")
        return command if isinstance(command, str) else None

    @property
    def best(self) -> tuple[str, int, float] | None:
        """Weights and head (model/cls), epoch, and top-1 in per cent of the best evaluation; None without any."""
        scores = [
            (row[name], name.removesuffix("/top1"), int(row["epoch"]))
            for row in self.rows
            for name in row
            if name.endswith("/top1")
        ]
        if not scores:
            return None
        top1, head, epoch = max(scores, key=lambda score: (score[0], -score[2]))
        return head, epoch, top1

    def part(self, name: str) -> Mapping[str, Any]:
        """A group of the settings; empty where it is missing."""
        values = self.settings.get(name)
        return values if isinstance(values, Mapping) else {}

    def points(self, name: str) -> list[tuple[float, float]]:
        """(epoch, value) of a metric, where there is one."""
        return [(row["epoch"], row[name]) for row in self.rows if name in row]

    def last(self, name: str) -> float | None:
        """The last value of a metric."""
        return next((row[name] for row in reversed(self.rows) if name in row), None)


def is_run(path: Path) -> bool:
    """Whether `train` has begun a run in this folder."""
    return (path / "config.json").is_file() or (path / "metrics.jsonl").is_file()


def read_run(path: Path) -> Run:
    """The run in a folder for which `is_run` holds; what is damaged is left out and named.

    Raises:
        OSError: the storage refuses.
    """
    unread, settings = [], {}
    try:
        found = RunFolder(path).settings()
        settings = found if isinstance(found, dict) else {}
        if not settings:
            unread.append(f"{path / 'config.json'} is missing or holds no settings")
    except DataError as error:
        unread.append(str(error))
    metrics = path / "metrics.jsonl"
    rows: dict[float, Row] = {}
    lines = metrics.read_bytes().splitlines() if metrics.is_file() else []
    bad = 0
    for line in lines:
        row = _row(line)
        if row is None:
            bad += 1
        else:
            rows[row["epoch"]] = row
    if bad:
        unread.append(f"{bad} of {len(lines)} lines of {metrics} are damaged and left out")
    name = path.resolve().name
    return Run(name, settings, [rows[epoch] for epoch in sorted(rows)], unread)


def _row(line: bytes) -> Row | None:
    """The numbers of a line; None unless it is an epoch's."""
    try:
        values = json.loads(line)
    except ValueError:
        return None
    if not isinstance(values, dict):
        return None
    row = {
        name: float(value)
        for name, value in values.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    }
    return row if row.get("epoch", 0) >= 1 else None
