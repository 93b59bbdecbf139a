"""Crops of images in object storage are those of the same images in a folder, whoever makes them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from cskd_pipeline.crops.recipe import RECIPES
from cskd_pipeline.errors import DataError
from cskd_pipeline.replay import CropLoader, EpochOrder
from cskd_pipeline.replay.evaluation import EvaluationSet
from cskd_pipeline.samples import SampleIndex, open_split
from cskd_pipeline.storage import open_storage

RECIPE = dataclasses.replace(RECIPES["deit"], size=24, group=16)


@pytest.fixture
def remote(toy: Path, s3: str) -> SampleIndex:
    for file in toy.iterdir():
        open_storage(f"{s3}/toy").write(file.name, file.read_bytes())
    index = open_split(f"{s3}/toy", "train")
    assert index.read(0), "this process has used object storage before it starts workers"
    return index


def crops(index: SampleIndex, *, workers: int) -> list[torch.Tensor]:
    """Four batches of an epoch; without RandAugment, for which every worker would have to load its kernels."""
    order = EpochOrder(RECIPE, (0, 1), len(index), batch=20, repeats=2, shuffle="blocks")
    epoch = order.crops(0)
    with CropLoader(index, RECIPE, workers=workers, augment=False, ahead=order.ahead) as loader:
        parts = [epoch.part(start, start + 20) for start in range(0, 80, 20)]
        return [batch.crops_B3SS.clone() for batch in loader.load(parts)]


@pytest.mark.parametrize("workers", [0, 2])
def test_crops_are_the_same(workers: int, remote: SampleIndex, toy: Path) -> None:
    expected = crops(open_split(str(toy), "train"), workers=0)
    found = crops(remote, workers=workers)
    assert len(found) == 4
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(found, expected, strict=True))


def test_an_error_names_the_sample(remote: SampleIndex) -> None:
    for name in ("train-0.tar", "train-1.tar"):
        open_storage(remote.root.address).delete(name)  # type: ignore[union-attr]
    with pytest.raises(DataError, match=r"sample 'img.*train-.\.tar is gone; the data changed after it was indexed"):
        crops(remote, workers=0)


def test_evaluation_sees_the_same_images(remote: SampleIndex, toy: Path) -> None:
    settings = {"size": 24, "crop_pct": 0.9, "mean": (0.5,) * 3, "std": (0.2,) * 3, "device": torch.device("cpu")}
    ours, theirs = (
        list(EvaluationSet(index, batch=32, **settings)())  # type: ignore[arg-type]
        for index in (remote, open_split(str(toy), "train"))
    )
    assert all(torch.equal(a, b) for pair in zip(ours, theirs, strict=True) for a, b in zip(*pair, strict=True))
