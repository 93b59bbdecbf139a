"""The benchmark of replay measures every pipeline and says what."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.slow
def test_every_pipeline_is_measured_and_the_page_written(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- replay: begin -->\n<!-- replay: end -->\nafter\n")
    words = ["--size", "32", "--crops", "128", "--repetitions", "1", "--json", tmp_path / "rows", "--write", page]
    subprocess.run([sys.executable, BENCHMARKS / "replay.py", *map(str, words)], check=True)
    rows = [json.loads(line) for line in (tmp_path / "rows").read_text().splitlines()]
    assert [(row["bench"], row["data"], row["pipeline"]) for row in rows] == [
        ("replay", "shapes", name)
        for name in ("timm", "pillow", "fast", "fast-device", "fast-repeats", "fast-device-repeats")
    ]
    assert rows[0]["ratio_to_timm"] == 1
    for row in rows:
        assert row["ratio_to_timm"] == pytest.approx(row["crops_s_core"] / rows[0]["crops_s_core"])
    text = page.read_text()
    assert text.startswith("before") and text.endswith("after\n")
    assert "python benchmarks/replay.py" in text and "| shapes | fast |" in text
