"""Crops of images in object storage are those of the same images in a folder, whoever makes them."""

from __future__ import annotations

import dataclasses
import multiprocessing.forkserver
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from cskd_pipeline.crops.recipe import RECIPES
from cskd_pipeline.data import SampleIndex, open_split
from cskd_pipeline.errors import DataError
from cskd_pipeline.loading import CropLoader, EpochOrder
from cskd_pipeline.loading.evaluation import EvaluationSet
from cskd_pipeline.loading.order import Batch
from cskd_pipeline.storage import open_storage

RECIPE = dataclasses.replace(RECIPES["deit"], size=24, group=16)


@pytest.fixture
def remote(toy: Path, s3: str) -> SampleIndex:
    for file in toy.iterdir():
        open_storage(f"{s3}/toy").write(file.name, file.read_bytes())
    index = open_split(f"{s3}/toy", "train")
    assert index.read(0), "this process has used object storage before it starts workers"
    return index


def loader(index: SampleIndex, *, workers: int) -> CropLoader:
    # Without RandAugment, for which every worker would have to load its kernels.
    return CropLoader(index, RECIPE, workers=workers, augment=False, ahead=4)


def parts(index: SampleIndex) -> list[Batch]:
    epoch = EpochOrder(RECIPE, (0, 1), len(index), batch=20, repeats=2, shuffle="blocks").crops(0)
    return [epoch.part(start, start + 20) for start in range(0, 80, 20)]


def crops(index: SampleIndex) -> list[torch.Tensor]:
    with loader(index, workers=0) as made:
        return [batch.crops_B3SS.clone() for batch in made.load(parts(index))]


def evaluated(index: SampleIndex, *, workers: int) -> list[torch.Tensor]:
    halves = (0.5, 0.5, 0.5)
    device = torch.device("cpu")
    batches = EvaluationSet(
        index, size=24, crop_pct=0.9, mean=halves, std=halves, device=device, batch=32, workers=workers
    )
    return [part for batch in batches for part in batch]


def test_crops_are_the_same(remote: SampleIndex, toy: Path) -> None:
    expected = crops(open_split(str(toy), "train"))
    found = crops(remote)
    assert len(found) == 4
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(found, expected, strict=True))


@pytest.fixture
def server() -> Iterator[Any]:
    """The server that workers are forked from, not yet started: one that is there has another environment."""
    found: Any = multiprocessing.forkserver._forkserver  # type: ignore[attr-defined]
    found._stop()
    yield found
    found._stop()


def test_workers_make_them_though_this_process_has_used_object_storage(
    remote: SampleIndex, toy: Path, server: Any
) -> None:
    expected = crops(open_split(str(toy), "train"))
    with loader(remote, workers=2) as made:
        found = []
        for batch in made.load(parts(remote)):
            found.append(batch.crops_B3SS.clone())
            os.kill(server._forkserver_pid, signal.SIGTERM)  # as a scheduler's signal to the whole process group
        assert os.waitpid(server._forkserver_pid, os.WNOHANG) == (0, 0), "it serves on"
        assert all(torch.equal(ours, theirs) for ours, theirs in zip(found, expected, strict=True))
        centres, local = (evaluated(index, workers=1) for index in (remote, open_split(str(toy), "train")))
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(centres, local, strict=True))


PROGRAM = """
import multiprocessing, os, signal, sys
from test_stored_crops import loader, parts
from cskd_pipeline.data import open_split

if __name__ == "__main__":
    index = open_split(sys.argv[1], "train")
    with loader(index, workers=1) as made:
        batches = made.load(parts(index))
        next(batches)
        (worker,) = multiprocessing.active_children()
        print(worker.pid, multiprocessing.forkserver._forkserver._forkserver_pid, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow
def test_workers_end_with_a_parent_that_was_killed(remote: SampleIndex, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    paths = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    done = subprocess.run(
        [sys.executable, "-W", "ignore", tmp_path / "program.py", f"{remote.root.address}"],  # type: ignore[union-attr]
        env={**os.environ, "PYTHONPATH": paths},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert done.returncode == -signal.SIGKILL
    left = [int(pid) for pid in done.stdout.split()]
    assert len(left) == 2
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{pid}").exists() for pid in left):
        assert time.monotonic() < deadline, "they outlive their parent"
        time.sleep(0.1)


def test_an_error_names_the_sample(remote: SampleIndex) -> None:
    for name in ("train-0.tar", "train-1.tar"):
        open_storage(remote.root.address).delete(name)  # type: ignore[union-attr]
    with pytest.raises(DataError, match=r"sample 'img.*train-.\.tar is gone; the data changed after it was indexed"):
        crops(remote)
