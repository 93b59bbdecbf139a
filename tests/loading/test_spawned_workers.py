"""Workers that are started afresh, as on macOS and Windows, make the same crops as forked ones."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import dataclasses, multiprocessing, sys
import numpy as np, torch
from cskd_pipeline.crops.recipe import RECIPES
from cskd_pipeline.loading import CropLoader, EpochOrder
from cskd_pipeline.data import open_split

def crops(index, workers):
    recipe = dataclasses.replace(RECIPES["deit"], size=24, group=16)
    order = EpochOrder(recipe, (0, 1), len(index), batch=20, repeats=2, shuffle="blocks")
    epoch = order.crops(0)
    with CropLoader(index, recipe, workers=workers, ahead=order.ahead) as loader:
        parts = [epoch.part(start, start + 20) for start in range(0, 40, 20)]
        return [(batch.crops_B3SS.clone(), batch.checksums()) for batch in loader.load(parts)]

if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv[1])
    index = open_split(sys.argv[2], "train")
    for ours, theirs in zip(crops(index, 0), crops(index, 2), strict=True):
        assert torch.equal(ours[0], theirs[0]) and np.array_equal(ours[1], theirs[1])
    print("the same")
"""


@pytest.mark.slow
@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_crops_are_the_same_from_workers_started_afresh(method: str, toy: Path, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    done = subprocess.run(
        [sys.executable, "-W", "ignore:This DataLoader", program, method, toy], capture_output=True, text=True
    )
    assert done.returncode == 0 and done.stdout == "the same\n", done.stderr
    assert not done.stderr
