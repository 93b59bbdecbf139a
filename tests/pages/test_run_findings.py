"""What a page says of runs: who is ahead, what differs, and what could not be read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cskd_pipeline.pages.run import Run, read_run
from cskd_pipeline.pages.run_part import runs_part


def run(name: str, *, tops: list[float], lr: float = 0.1, wait: float = 0.05, epochs: int = 2, **settings: Any) -> Run:
    rows = [
        {
            "epoch": float(at),
            "train/loss": 3.0 / at,
            "model/cls/top1": top,
            "seconds": 10.0,
            "data_wait_share": wait,
            "crops_per_s": 100.0,
        }
        for at, top in enumerate(tops, 1)
    ]
    given = {
        "train": {"epochs": epochs, "lr": lr},
        "objective": {"name": "cskd"},
        "student": {"model": "deit_ti"},
        "notes": {"command": f"cskd-pipeline train --out {name}"},
    }
    return Run(name, {**given, **settings}, rows, [])


def page(*runs: Run) -> str:
    return "".join(runs_part(runs).blocks)


def test_the_better_run_is_named_with_its_lead() -> None:
    said = page(run("a", tops=[10.0, 30.0]), run("b", tops=[20.0, 32.5], lr=0.2))
    assert "b reaches the best top-1, 32.50%, with model/cls after epoch 2: 2.50 points over a." in said
    assert "b ends highest at 32.50%, a at 30.00%." in said
    assert "<td>train.lr</td>" in said.replace("<span>", "").replace("</span>", "")
    assert "cskd-pipeline train --out a" in said and "cskd-pipeline train --out b" in said


def test_level_runs_are_called_level_and_open_ones_open() -> None:
    said = page(run("a", tops=[30.0, 32.45]), run("b", tops=[20.0, 32.5], epochs=5))
    assert "level with a. b is not finished, so that may change." in said


def test_waiting_is_pointed_at() -> None:
    assert "a (50.0%) waited for data for more than 20.0% of the time" in page(run("a", tops=[1.0], wait=0.5, epochs=1))
    assert "Over a whole run waiting took at most 5.0% of the time" in page(run("a", tops=[1.0], epochs=1))


def test_a_run_without_evaluation_or_epochs_is_shown() -> None:
    said = page(Run("a", {"train": {"epochs": 3}}, [], []))
    assert "The run was not evaluated. a is not finished" in said and "No epoch is finished" in said


@pytest.mark.parametrize("name", ["config.json", "metrics.jsonl"])
def test_damage_is_left_out_and_named(name: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"train": {"epochs": 1}}))
    (tmp_path / "metrics.jsonl").write_text('{"epoch": 1, "train/loss": 2.0, "lr": NaN}\n')
    with (tmp_path / name).open("a") as file:
        file.write("{broken\n")
    found = read_run(tmp_path)
    assert found.rows == [{"epoch": 1.0, "train/loss": 2.0}]
    assert len(found.unread) == 1 and name in found.unread[0]
