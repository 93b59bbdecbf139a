"""A crop's bytes depend on (recipe, seed, sample) alone: not on workers, order, batch or world size."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import multiprocessing
import multiprocessing.synchronize
import os
import signal
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cskd_pipeline.crops.batch import CropBatch
from cskd_pipeline.crops.checksum import crop_crc
from cskd_pipeline.crops.recipe import RECIPES, CropRecipe
from cskd_pipeline.data import SampleIndex, open_split
from cskd_pipeline.data.decode import Box
from cskd_pipeline.errors import DataError, MismatchError, RetryError, UsageError
from cskd_pipeline.loading import CropLoader, EpochOrder, EvaluationSet
from cskd_pipeline.loading.making import Slots
from cskd_pipeline.loading.order import Batch
from cskd_pipeline.loading.workers import Workers
from cskd_pipeline.replay import Canary, NoTargets, ReplaySource

RECIPE = dataclasses.replace(RECIPES["deit"], size=24, group=16)
FOUR_EPOCHS = (0,) * 4
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.fixture
def index(toy: Path) -> SampleIndex:
    return open_split(str(toy), "train")


def finished(batch: CropBatch) -> dict[tuple[int, int], tuple[bytes, bytes, float]]:
    """(seed, sample) -> uint8 pixels, finished pixels, weight of the own label."""
    mean, std = IMAGENET
    pixels = batch.pixels(RECIPE, mean=mean, std=std, device=torch.device("cpu"))
    labels = batch.labels(RECIPE, device=torch.device("cpu"))
    return {
        (int(draw["seed"]), int(draw["sample"])): (
            batch.crops_B3SS[row].numpy().tobytes(),
            pixels[row].numpy().tobytes(),
            float(labels.weight_B[row]),
        )
        for row, draw in enumerate(batch.draws_B)
    }


def everything(
    index: SampleIndex, *, workers: int, batch: int, key: int, augment: bool = True, ahead: int = 1
) -> dict[tuple[int, int], tuple[bytes, bytes, float]]:
    order = EpochOrder(RECIPE, (0, 1), len(index), batch=batch, repeats=2, key=key)
    crops = {}
    loader = CropLoader(index, RECIPE, workers=workers, augment=augment, ahead=ahead)
    for epoch in range(8):
        crops_of_epoch = order.crops(epoch)
        parts = [crops_of_epoch.part(start, start + batch) for start in range(0, len(crops_of_epoch.seeds_B), batch)]
        for loaded in loader.load(parts):
            assert loaded.augmented == augment
            crops.update(finished(loaded.on(torch.device("cpu"), RECIPE)))
    return crops


def test_crops_do_not_depend_on_workers_order_or_batch(index: SampleIndex) -> None:
    reference = everything(index, workers=0, batch=10, key=0)
    assert len(reference) == 2 * len(index)
    for workers, batch, key in ((2, 10, 0), (1, 32, 5)):
        assert everything(index, workers=workers, batch=batch, key=key) == reference
    assert everything(index, workers=1, batch=80, key=0, ahead=2) == reference
    assert everything(index, workers=0, batch=20, key=0, augment=False, ahead=9) == reference
    assert everything(index, workers=2, batch=20, key=0, augment=False) == reference


@pytest.mark.parametrize("shuffle", ["full", "blocks"])
def test_a_global_batch_is_the_same_crops_for_any_world_and_accumulation(index: SampleIndex, shuffle: Any) -> None:
    recipe = dataclasses.replace(RECIPE, group=4)
    order = EpochOrder(recipe, (0, 1), len(index), batch=24, key=3, repeats=2, shuffle=shuffle)
    mean, std = IMAGENET

    def updates(world: int, accumulation: int) -> list[list[bytes]]:
        batches: list[list[bytes]] = [[] for _ in range(order.batches)]
        for rank in range(world):
            loader = CropLoader(index, recipe, workers=0, ahead=order.ahead * accumulation)
            source = ReplaySource(
                order,
                loader,
                NoTargets(),
                FOUR_EPOCHS,
                mean,
                std,
                torch.device("cpu"),
                rank=rank,
                world=world,
                accumulation=accumulation,
            )
            assert source.batches_per_epoch == order.batches * accumulation
            half = source.batches_per_epoch // 2
            resumed = itertools.chain(
                itertools.islice(source.batches(1, start=0), half),
                source.batches(1, start=half),
            )
            for number, batch in enumerate(resumed):
                batches[number // accumulation] += [crop.numpy().tobytes() for crop in batch.pixels_B3SS]
        return [sorted(batch) for batch in batches]

    reference = updates(1, 1)
    assert updates(2, 1) == reference
    assert updates(2, 3) == reference


def test_a_resumed_epoch_goes_on_with_the_same_batches(index: SampleIndex) -> None:
    order = EpochOrder(RECIPE, (0,), len(index), batch=20)
    mean, std = IMAGENET
    source = ReplaySource(
        order, CropLoader(index, RECIPE, workers=0), NoTargets(), FOUR_EPOCHS, mean, std, torch.device("cpu")
    )
    whole = [batch.pixels_B3SS for batch in source.batches(2, start=0)]
    for ahead in (0, 1):
        source = dataclasses.replace(source, ahead=ahead)
        rest = [batch.pixels_B3SS for batch in source.batches(2, start=3)]
        assert len(whole) == 5 and len(rest) == 2
        assert all(torch.equal(a, b) for a, b in zip(whole[3:], rest, strict=True))


def test_a_shuffle_by_blocks_decodes_an_image_once_for_its_repeated_crops(
    index: SampleIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[int] = []
    decode = SampleIndex.decode_parts

    def counted(self: SampleIndex, sample: int, boxes: list[Box], encoded: bytes) -> object:
        decoded.append(sample)
        return decode(self, sample, boxes, encoded)

    monkeypatch.setattr(SampleIndex, "decode_parts", counted)
    monkeypatch.setattr(SampleIndex, "__len__", lambda self: 96)  # whole groups
    recipe = dataclasses.replace(RECIPE, group=4)
    mean, std = IMAGENET
    crops = {}
    for shuffle in ("full", "blocks"):
        order = EpochOrder(recipe, (0, 1, 2), 96, batch=24, repeats=3, shuffle=shuffle)
        loader = CropLoader(index, recipe, workers=0, ahead=order.ahead)
        source = ReplaySource(order, loader, NoTargets(), FOUR_EPOCHS, mean, std, torch.device("cpu"))
        decoded.clear()
        loaded = [crop.numpy().tobytes() for batch in source.batches(0, start=0) for crop in batch.pixels_B3SS]
        crops[shuffle] = sorted(loaded), len(decoded)
    assert crops["blocks"][0] == crops["full"][0]
    assert crops["full"][1] > 80
    assert crops["blocks"][1] <= 32 + 8 * 4, "an image is decoded again if the epoch begins amid its group"


def test_a_batch_that_would_part_partners_is_refused(index: SampleIndex) -> None:
    order = EpochOrder(RECIPE, (0,), len(index), batch=20)
    mean, std = IMAGENET
    with pytest.raises(UsageError, match="batch of 20 cannot be split over 4 processes"):
        ReplaySource(
            order,
            CropLoader(index, RECIPE, workers=0),
            NoTargets(),
            FOUR_EPOCHS,
            mean,
            std,
            torch.device("cpu"),
            world=4,
        )


@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_image_is_named_and_never_replaced(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    monkeypatch.setenv("CSKD_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "broken"
    folder.mkdir()
    for file in toy.iterdir():
        data = bytearray(file.read_bytes())
        if file.name == "train-0.tar":
            start = data.index(b"\xff\xda")  # the first image's scan
            data[start : start + 300] = bytes(300)
        (folder / file.name).write_bytes(data)
    index = open_split(str(folder), "train")
    broken = next(sample for sample in range(len(index)) if index.key(sample) == "img00000")
    loader = CropLoader(index, RECIPES["plain"], workers=workers)
    with pytest.raises(DataError, match="img00000"):
        list(loader.load([Batch(np.zeros(1, np.int64), np.array([broken]), np.array([broken]))]))


def test_crops_that_are_not_augmented_yet_have_no_checksums(index: SampleIndex) -> None:
    crops = Batch(np.zeros(2, np.int64), np.arange(2), np.arange(2))
    with CropLoader(index, RECIPES["deit"], workers=0, augment=False) as loader:
        (batch,) = loader.load([crops])
        with pytest.raises(UsageError, match="not augmented yet"):
            batch.checksums()
        assert len(batch.on(torch.device("cpu"), RECIPES["deit"]).checksums()) == 2


def test_a_killed_worker_is_an_error_at_once(index: SampleIndex) -> None:
    crops = Batch(np.zeros(10, np.int64), np.arange(10), np.arange(10))
    with CropLoader(index, RECIPES["plain"], workers=1, augment=False) as loader:
        batches = loader.load([crops] * 8)
        next(batches)
        (worker,) = multiprocessing.active_children()
        assert worker.pid is not None
        os.kill(worker.pid, signal.SIGBUS)
        with pytest.raises(RetryError, match=f"was killed by signal {signal.SIGBUS:d}.*--workers"):
            list(batches)
        assert not multiprocessing.active_children()
        assert len(list(loader.load([crops]))) == 1, "others take its place"


def test_after_ctrl_c_the_loader_makes_what_is_asked_for_next(
    index: SampleIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crops(first: int) -> list[Batch]:
        parts = [np.arange(start, start + 10) for start in range(first, first + 60, 10)]
        return [Batch(np.zeros(10, np.int64), part, part) for part in parts]

    def interrupted(*waited_for: object) -> None:
        raise KeyboardInterrupt

    with CropLoader(index, RECIPES["plain"], workers=0) as here:
        expected = [batch.checksums() for batch in here.load(crops(50))]
    with CropLoader(index, RECIPES["plain"], workers=2) as loader:
        for _ in range(2):
            early = loader.load(crops(0))
            next(early)
            with monkeypatch.context() as patch:
                patch.setattr("cskd_pipeline.loading.workers.wait", interrupted)
                with pytest.raises(KeyboardInterrupt):
                    next(early)
            found = [(batch.checksums(), batch.crops_B3SS.numpy()) for batch in loader.load(crops(50))]
            for crcs, (noted, pixels) in zip(expected, found, strict=True):
                assert crcs.tolist() == noted.tolist() == [crop_crc(crop) for crop in pixels]


def test_all_orders_of_large_batches_are_taken_unread() -> None:
    ahead = Slots(batch=1 << 20, size=1, workers=1).ahead
    orders = [(slot, 64) for slot in range(70_000, 71_000)]
    ours, its = multiprocessing.Pipe()
    with ours, its:
        os.set_blocking(ours.fileno(), False)  # a send that would have to wait for the reader raises
        for order in orders[:ahead]:
            ours.send(order)
        assert [its.recv() for _ in range(ahead)] == orders[:ahead]
    with contextlib.closing(Workers(lambda order: None, 1, method=None)) as one:
        assert [*one.carry_out(orders, ahead=ahead)] == orders


def test_workers_need_nothing_in_shared_memory_files(index: SampleIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*args: Any, **settings: Any) -> None:
        raise OSError("there is no /dev/shm")

    monkeypatch.setattr(multiprocessing.synchronize.SemLock, "__init__", refused)
    monkeypatch.setattr(tempfile, "mkstemp", refused)
    crops = Batch(np.zeros(10, np.int64), np.arange(10), np.arange(10))
    with CropLoader(index, RECIPES["plain"], workers=2, augment=False) as loader:
        assert len(list(loader.load([crops]))) == 1
    half = (0.5, 0.5, 0.5)
    parts = [
        list(EvaluationSet(index, 24, 0.9, half, half, torch.device("cpu"), batch=70, workers=workers))
        for workers in (0, 2)
    ]
    assert sum(len(labels) for _, labels in parts[0]) == len(index)
    for ours, theirs in zip(*parts, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("workers", [0, 1])
def test_batches_of_an_earlier_load_are_not_mixed_up_with_those_of_a_later_one(
    index: SampleIndex, workers: int
) -> None:
    def batches(first: int) -> list[Batch]:
        samples = [np.arange(start, start + 10) for start in range(first, first + 40, 10)]
        return [Batch(np.zeros(10, np.int64), part, part) for part in samples]

    with CropLoader(index, RECIPES["plain"], workers=workers) as loader:
        early = loader.load(batches(0))
        assert next(early).draws_B["sample"].tolist() == list(range(10))
        late = loader.load(batches(50))
        with pytest.raises(RuntimeError, match="loads other batches now"):
            next(early)
        assert [batch.draws_B["sample"][0] for batch in late] == [50, 60, 70, 80]
        unfinished = loader.load(batches(0))
    with pytest.raises(RuntimeError, match="was closed"):
        next(unfinished)


def test_the_canary_sees_the_first_batch_whole_and_a_share_of_the_rest(index: SampleIndex) -> None:
    loader = CropLoader(index, RECIPES["plain"], workers=0)
    crops = Batch(np.zeros(40, np.int64), np.arange(40), np.arange(40))
    batch = next(loader.load([crops]))
    wrong = batch.crc_B.copy()
    wrong[17] ^= 1
    with pytest.raises(DataError, match=r"seed 0, sample 17.*1 of 40 checked"):
        Canary(0.0).check(batch, wrong, first=True)
    later = next(CropLoader(index, RECIPES["plain"], workers=0, augment=False).load([crops]))
    later = later.on(torch.device("cpu"), RECIPES["plain"])
    with pytest.raises(DataError, match=r"seed 0, sample 17\) has checksum .*1 of 40 checked"):
        Canary(0.0).check(later, wrong, first=True)
    Canary(1.0).check(later, batch.crc_B, first=False)
    Canary(0.0).check(batch, wrong, first=False)
    canary = Canary(0.1)
    for _ in range(10):
        canary.check(batch, batch.crc_B, first=False)
    assert canary.checked == 40
    with pytest.raises(DataError):
        Canary(1.0).check(batch, wrong, first=False)
    with pytest.raises(UsageError, match="at most 1, found 2"):
        Canary(2)


def test_targets_are_told_what_comes_next(index: SampleIndex) -> None:
    order = EpochOrder(RECIPE, (4, 5, 6), len(index), batch=20, repeats=2)
    told = []

    class Listener(NoTargets):
        def prepare(self, seeds: list[int], *, ratio_steps: int, upcoming: tuple[list[int], int] | None = None) -> None:
            told.append((seeds, ratio_steps, upcoming))

    mean, std = IMAGENET
    loader = CropLoader(index, RECIPE, workers=0)
    source = ReplaySource(order, loader, Listener(), (10, 20), mean, std, torch.device("cpu"))
    for epoch in range(2):
        next(source.batches(epoch))
    assert told == [([4, 5], 10, ([6, 4], 20)), ([6, 4], 20, None)]
    for epoch in (2, -1):
        with pytest.raises(UsageError, match=f"epoch {epoch} is not one of the schedule's 2, counted from 0"):
            next(source.batches(epoch))


@pytest.mark.parametrize(
    "ratio_steps, said", [(0.5, "whole number, found 0.5"), (65537, "most 65536"), (-1, "least 0")]
)
def test_a_schedule_of_what_is_no_ratio_is_refused(index: SampleIndex, ratio_steps: Any, said: str) -> None:
    order = EpochOrder(RECIPE, (0,), len(index), batch=20)
    mean, std = IMAGENET
    loader = CropLoader(index, RECIPE, workers=0)
    with pytest.raises(UsageError, match=rf"r \* 65536\) of epoch 1 must be .*{said}"):
        ReplaySource(order, loader, NoTargets(), (65536, ratio_steps), mean, std, torch.device("cpu"))


def test_an_order_over_other_crops_than_the_loader_makes_is_refused(index: SampleIndex) -> None:
    mean, std = IMAGENET
    loader = CropLoader(index, RECIPE, workers=0)
    fewer = EpochOrder(RECIPE, (0,), len(index) - 12, batch=20)
    other = EpochOrder(dataclasses.replace(RECIPE, key=1), (0,), len(index), batch=20)
    for order, said in ((fewer, f"over {len(index) - 12} samples .* over {len(index)} with"), (other, "key=1.* key=0")):
        with pytest.raises(MismatchError, match=said):
            ReplaySource(order, loader, NoTargets(), FOUR_EPOCHS, mean, std, torch.device("cpu"))


def test_what_the_targets_refuse_is_refused_before_the_first_epoch(index: SampleIndex) -> None:
    class Strict(NoTargets):
        def require(self, index: SampleIndex, recipe: CropRecipe, seeds: Sequence[int]) -> None:
            raise MismatchError(f"{len(index)} {recipe.size} {seeds}")

    order = EpochOrder(RECIPE, (3, 4), len(index), batch=20)
    mean, std = IMAGENET
    loader = CropLoader(index, RECIPE, workers=0)
    with pytest.raises(MismatchError, match=rf"{len(index)} 24 \(3, 4\)"):
        ReplaySource(order, loader, Strict(), FOUR_EPOCHS, mean, std, torch.device("cpu"))
