"""Nothing that is committed is ever lost, and no damage goes unnoticed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent


def run(*words: object) -> str:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, *map(str, words)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
def test_a_power_cut_after_any_step_of_a_write_loses_nothing(tmp_path: Path) -> None:
    said = run(FOLDER / "crash_points.py", tmp_path)
    steps = {name: int(count) for name, count in re.findall(r"(\w+): (\d+) steps", said)}
    assert set(steps) == {"new", "second", "replaced"} and min(steps.values()) > 25


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_kills_and_damages_cost_nothing() -> None:
    last = run(FOLDER / "run.py", "--kills", 200, "--flips", 500).splitlines()[-1]
    assert last == "kills 200 lost 0 wrong 0 flips 500 undetected 0"
