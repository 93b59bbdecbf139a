"""How many processes `--workers auto` starts."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from cskd_pipeline.runtime import processors as machine


@pytest.mark.parametrize(
    "processors, quota, ranks, workers",
    [
        (8, None, None, 7),
        (8, "max 100000", None, 7),
        (64, None, None, 16),
        (64, "400000 100000", None, 3),
        (64, "50000 100000", None, 1),
        (2, "1600000 100000", None, 1),
        (32, None, "8", 3),
        (1, None, None, 1),
    ],
)
def test_workers_follow_the_usable_processors(
    processors: int, quota: str | None, ranks: str | None, workers: int, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(processors)), raising=False)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    if ranks is not None:
        monkeypatch.setenv("LOCAL_WORLD_SIZE", ranks)
    monkeypatch.setattr(machine, "CPU_QUOTA", tmp_path / "cpu.max")
    if quota is not None:
        (tmp_path / "cpu.max").write_text(f"{quota}\n")
    assert machine.worker_count() == workers
    assert machine.worker_count(5) == 5
