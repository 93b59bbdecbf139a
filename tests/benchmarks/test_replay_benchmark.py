"""The benchmarks of replay, of training steps and of precompute measure what they say, and write it down."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from cskd_pipeline.objectives import OBJECTIVES

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.slow
def test_every_pipeline_is_measured_and_the_page_written(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- replay: begin -->\n<!-- replay: end -->\nafter\n")
    words = ["--size", "32", "--crops", "128", "--repetitions", "1", "--json", tmp_path / "rows", "--write", page]
    subprocess.run([sys.executable, BENCHMARKS / "replay.py", *map(str, words)], check=True)
    rows = [json.loads(line) for line in (tmp_path / "rows").read_text().splitlines()]
    assert [(row["bench"], row["data"], row["pipeline"]) for row in rows] == [
        ("replay", "shapes", name) for name in ("timm", "ours", "ours-device", "ours-repeats", "ours-device-repeats")
    ]
    assert rows[0]["ratio_to_timm"] == 1
    for row in rows:
        assert row["ratio_to_timm"] == pytest.approx(row["crops_s_core"] / rows[0]["crops_s_core"])
    text = page.read_text()
    assert text.startswith("before") and text.endswith("after\n")
    assert "python benchmarks/replay.py" in text and "| shapes | ours |" in text


@pytest.mark.slow
def test_every_mode_of_a_training_step_is_measured(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- steps: begin -->\n<!-- steps: end -->\n")
    words = ["--students", "deit_ti", "--teacher", "resnet10t", "--size", "64", "--batch", "8", "--repetitions", "1"]
    words += ["--json", str(tmp_path / "rows"), "--write", str(page)]
    subprocess.run([sys.executable, BENCHMARKS / "steps.py", *words], check=True)
    rows = [json.loads(line) for line in (tmp_path / "rows").read_text().splitlines()]
    assert [(row["bench"], row["student"], row["mode"], row["device"]) for row in rows] == [
        ("steps", "deit_ti", mode, "cpu") for mode in ("none", "stored", "live", "timm")
    ]
    none, stored, live, timm = (row["ms"] for row in rows)
    assert rows[1]["speedup_over_timm"] == pytest.approx(timm / stored)
    for row in rows:
        assert 0 <= row["system_share"] < 1 and row["faster"] > 0 and row["crops_s"] == pytest.approx(8e3 / row["ms"])
        assert row["ratio_to_none"] == pytest.approx(row["ms"] / none)
    possible = (none + rows[0]["teacher_ms"]) / none
    assert rows[1]["share_of_possible"] == pytest.approx(live / stored / possible)
    assert "| deit_ti | stored | cpu |" in page.read_text()


@pytest.mark.slow
def test_a_step_of_every_objective_is_measured_beside_that_of_none(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- objectives: begin -->\n<!-- objectives: end -->\n")
    words = ["--teacher", "test_resnet", "--vit", "vit_tiny_patch16_224"]
    words += ["--size", "96", "--batch", "4", "--repetitions", "1"]
    words += ["--json", str(tmp_path / "rows"), "--write", str(page)]
    subprocess.run([sys.executable, BENCHMARKS / "objectives.py", *words], check=True)
    rows = {row["objective"]: row for row in map(json.loads, (tmp_path / "rows").read_text().splitlines())}
    assert {name.split()[0] for name in rows} == {*OBJECTIVES} - {"civt"}
    for row in rows.values():
        assert row["ratio_to_supervised"] == pytest.approx(row["ms"] / rows["supervised"]["ms"])
    assert "| cskd mode=soft | deit_ti | cpu |" in page.read_text()


@pytest.mark.slow
def test_precompute_is_measured_beside_its_parts(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- precompute: begin -->\n<!-- precompute: end -->\n")
    words = ["--teachers", "resnet10t", "--size", "32", "--crops", "256", "--block", "256", "--repetitions", "1"]
    words += ["--plan-seconds", "1"]
    words += ["--json", str(tmp_path / "row"), "--write", str(page)]
    subprocess.run([sys.executable, BENCHMARKS / "precompute.py", *words], check=True)
    row = json.loads((tmp_path / "row").read_text())
    assert row["bench"] == "precompute"
    limit = min(row["teacher_only_crops_s"], row["loader_only_crops_s"])
    assert row["ratio_to_limit"] == pytest.approx(row["crops_s"] / limit)
    assert 0 <= row["system_share"] < 1 and 0 <= row["system_share_as_it_comes"] < 1 and row["faster"] > 0
    assert "| resnet10t | 32 | hard,soft |" in page.read_text()
