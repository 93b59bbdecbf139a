"""Nothing that is committed is ever lost, and no damage goes unnoticed."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path

import pytest
import warm

FOLDER = Path(__file__).parent


def program(name: str, words: list[str]) -> None:
    sys.argv = [name, *words]
    runpy.run_path(str(FOLDER / name), run_name="__main__")


def run(name: str, *words: object) -> str:
    """What a program says; in a process of its own, for it forks."""
    started = warm.start(program, name, [str(word) for word in words])
    code = started.finish(timeout_s=1400)
    said = started.out.read_text()
    assert code == 0, said[-3000:] + started.err.read_text()[-3000:]
    return said


@pytest.mark.slow
def test_a_power_cut_after_any_step_of_a_write_loses_nothing(tmp_path: Path) -> None:
    said = run("crash_points.py", tmp_path)
    steps = {name: int(count) for name, count in re.findall(r"(\w+): (\d+) steps", said)}
    assert set(steps) == {"new", "second", "replaced"} and min(steps.values()) > 25


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("kills, flips, seed", [(100, 0, 0), (0, 120, 1), (0, 120, 2)])
def test_kills_and_damages_cost_nothing(kills: int, flips: int, seed: int) -> None:
    last = run("run.py", "--kills", kills, "--flips", flips, "--seed", seed).splitlines()[-1]
    assert last == f"kills {kills} lost 0 wrong 0 flips {flips} undetected 0"
