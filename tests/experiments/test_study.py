"""Studies: each run once, a row for each, and tables and plots from rows alone."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import yaml
from scipy.stats import ttest_rel

EXPERIMENTS = Path(__file__).parents[2] / "experiments"

SCHEDULE = {"epochs": 1, "warmup-epochs": 0, "batch-size": 16, "ema-decay": 0, "drop-path": 0, "eval-every": 0}
SETS: dict[str, Any] = {
    "scales": {"cpu": {"train": {"student": "deit_ti", **SCHEDULE}}},
    "sets": {
        "toy": {
            "data": "{data}/toy",
            "teacher": {"teacher": "test_resnet", "teacher-weights": "{work}/cnn/last.safetensors"},
            "stores": {
                "labels": {"targets": "hard,soft,truth"},
                "second": {
                    "targets": "soft",
                    "teacher": "test_resnet",
                    "teacher-weights": "{work}/pupil/last.safetensors",
                },
            },
            "cpu": {
                "teachers": {
                    "cnn": {"student": "test_resnet", "recipe": "plain", "size": 32, **SCHEDULE},
                    "pupil": {"student": "test_resnet", "labels": "{work}/labels.zarr", "objective": "kd", **SCHEDULE},
                },
                "precompute": {"size": 32, "seeds": "0:2"},
                "train": {"student-arg": ["embed_dim=12", "depth=1", "num_heads=1"]},
            },
        }
    },
}
STUDY: dict[str, Any] = {
    "sets": ["toy"],
    "repeats": 1,
    "at": {1: {"seeds": "0:1"}, 2: {}},
    "runs": {"cskd": {"objective": "cskd"}, "live": {"objective": "cskd", "live": True, "at": {2: {}}}},
}
METHODS: dict[str, Any] = {
    "sets": ["toy"],
    "repeats": 1,
    "runs": {"same": {"objective": "cskd"}, "of a pupil": {"objective": "kd", "labels": ["second"]}},
}


@pytest.fixture
def results(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(EXPERIMENTS)
    return importlib.import_module("results")


@pytest.mark.slow
def test_a_study_makes_what_it_needs_and_does_nothing_twice(toy: Path, tmp_path: Path) -> None:
    for name, content in (("sets", SETS), ("views", STUDY), ("methods", METHODS)):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(content))

    def rows(name: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (tmp_path / "rows" / f"{name}.jsonl").read_text().splitlines()]

    def study(name: str) -> str:
        places = ["--data", toy.parent, "--work", tmp_path / "work", "--results", tmp_path / "rows", "--jobs", "2"]
        command = [sys.executable, EXPERIMENTS / "study.py", tmp_path / f"{name}.yaml", *places]
        return subprocess.run([*map(str, command)], check=True, capture_output=True, text=True).stderr

    study("views")
    assert [row["made"] for row in rows("sets")] == ["cnn", "labels.zarr"]
    assert rows("sets")[1]["crops"] == 220
    found = {(row["run"], row["at"]): row for row in rows("views")}
    assert set(found) == {("cskd", "1"), ("cskd", "2"), ("live", "2")}
    assert found["live", "2"]["top1"] == found["cskd", "2"]["top1"] != {}
    assert "--labels WORK/labels.zarr --data DATA/toy" in found["cskd", "1"]["command"]
    assert str(tmp_path) not in json.dumps([*rows("sets"), *rows("views")])

    assert study("views") == ""
    study("methods")  # a run of the other study, and one of a teacher that learned from the first one's labels
    assert [row["made"] for row in rows("sets")[2:]] == ["pupil", "second.zarr"]
    assert not (tmp_path / "work" / "toy-cpu" / "same-0").exists()
    methods = {row["run"]: row for row in rows("methods")}
    assert methods["same"]["top1"] == found["cskd", "2"]["top1"]
    assert "--labels WORK/second.zarr" in methods["of a pupil"]["command"]


@pytest.mark.parametrize("scale", ["cpu", "gpu"])
@pytest.mark.parametrize("name", ["methods", "views", "time", "soft"])
def test_the_studies_find_what_they_name(
    results: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, scale: str
) -> None:
    study = importlib.import_module("study")
    made: list[str] = []
    monkeypatch.setattr(study.Study, "make", lambda self, set_name, name, command, options: made.append(name))
    monkeypatch.setattr(study.Study, "train", lambda self, run: None)
    places = ["--data", str(tmp_path), "--work", str(tmp_path / "work"), "--results", str(tmp_path / "rows")]
    monkeypatch.setattr(
        sys, "argv", ["study.py", str(EXPERIMENTS / "studies" / f"{name}.yaml"), "--scale", scale, *places]
    )
    study.main()
    assert made


def test_the_interval_of_two_runs_is_that_of_students_paired_test(results: ModuleType) -> None:
    scores = {"supervised": [50.0, 52.5, 51.0], "kd": [53.0, 54.0, 54.5]}
    runs = {
        (name,): [{"seed": seed, "objective": name, "top1": {"cls": value}} for seed, value in enumerate(values)]
        for name, values in scores.items()
    }
    ((mean, half),) = results.differences(runs, ("supervised",)).values()
    low, high = ttest_rel(scores["kd"], scores["supervised"]).confidence_interval(0.95)
    assert np.allclose([mean - half, mean + half], [low, high])


def test_the_score_of_a_run_is_that_of_the_head_that_is_exported(results: ModuleType) -> None:
    top1 = {"cls": 1.0, "two_head": 2.0, "three_head": 3.0}
    assert results.exported({"objective": "cskd", "top1": top1}) == 3
    assert results.exported({"objective": "deit", "top1": top1}) == 2
    assert results.exported({"objective": "kd", "top1": {"cls": 1.0}}) == 1


def test_the_page_holds_the_tables_and_plots_of_the_rows(results: ModuleType, tmp_path: Path) -> None:
    page = EXPERIMENTS.parent / "docs" / "results.md"
    again = tmp_path / page.name
    again.write_text(page.read_text())
    (tmp_path / "images").mkdir()
    results.write(results.all_rows(EXPERIMENTS / "results"), again)
    assert again.read_text() == page.read_text()
    for plot in (tmp_path / "images").iterdir():
        assert plot.read_bytes() == (page.parent / "images" / plot.name).read_bytes(), plot.name
