"""Before labels are made: what the check of a teacher finds out about its classes and its input."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from cskd_pipeline.crops.recipe import RECIPES
from cskd_pipeline.data import open_split
from cskd_pipeline.errors import MismatchError
from cskd_pipeline.labelling import teacher_check
from cskd_pipeline.labelling.job import PrecomputeJob
from cskd_pipeline.labelling.teacher_check import check_teacher, refuse_other_order
from cskd_pipeline.labels import HardEncoding
from cskd_pipeline.models.normalisation import PUBLISHED
from cskd_pipeline.models.teacher.spec import TeacherSpec
from cskd_pipeline.models.teacher.teacher import Teacher
from cskd_pipeline.store import TeacherCheck, read_teacher_check, summarise, write_teacher_check
from cskd_pipeline.store.reader import StoreReader
from cskd_pipeline.store.writer import StoreWriter

CLASSES = 12
RECIPE = dataclasses.replace(RECIPES["plain"], size=32)
LEVELS_C3 = np.random.default_rng(0).permuted(np.linspace(30, 225, CLASSES * 3)).reshape(CLASSES, 3)
"""The colour of a class."""


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve classes "0" to "11", 20 images each, of one colour with a little noise."""
    root = tmp_path_factory.mktemp("colours")
    for number in range(CLASSES):
        (folder := root / "train" / str(number)).mkdir(parents=True)
        for image in range(20):
            noise = np.random.default_rng([number, image]).normal(0, 3, (40, 40, 3))
            pixels = (LEVELS_C3[number] + noise).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"{image}.png")
    return root


class Nearest(torch.nn.Module):
    """Logits: minus the squared distance of the mean pixel to the colour of each class, times `sharpness`."""

    num_features = 3

    def __init__(self, colours_C3: torch.Tensor, sharpness: float) -> None:
        super().__init__()
        self.register_buffer("colours_C3", colours_C3)
        self.sharpness = sharpness

    def forward_features(self, pixels: torch.Tensor) -> torch.Tensor:
        return pixels.mean((2, 3), keepdim=True)

    def forward_head(self, features: torch.Tensor) -> torch.Tensor:
        return -self.sharpness * (features.flatten(1)[:, None] - self.colours_C3).square().sum(2)


Make = Callable[..., PrecomputeJob]


@pytest.fixture
def make(colours: Path, session_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """A job whose teacher names the class of the nearest colour, its outputs in the order of `order`.

    It was trained on input normalised as `trained` has it, and gets it as `given` has it.
    """
    monkeypatch.setenv("CSKD_CACHE", str(session_cache))

    def make(
        order: Sequence[str] | None = None,
        *,
        trained: str = "imagenet",
        given: str = "imagenet",
        sharpness: float = 50.0,
    ) -> PrecomputeJob:
        index = open_split(str(colours), "train")
        mean, std = (torch.tensor(PUBLISHED[trained][which]) for which in ("mean", "std"))
        colours_C3 = torch.tensor(LEVELS_C3[[int(name) for name in order or index.classes]]).float() / 255
        spec = TeacherSpec(
            model="nearest",
            weights="0" * 64,
            classes=CLASSES,
            args={},
            mean=PUBLISHED[given]["mean"],
            std=PUBLISHED[given]["std"],
            chunk=32,
        )
        model = Nearest((colours_C3 - mean) / std, sharpness)
        teacher = Teacher(model, spec, size=RECIPE.size, device=torch.device("cpu"))
        return PrecomputeJob(index, RECIPE, teacher, {"hard": HardEncoding(positions=1, classes=CLASSES)})

    return make


def check(job: PrecomputeJob, **options: Any) -> TeacherCheck:
    return check_teacher(job, seed=0, crop_pct=0.875, workers=0, **options)


def test_a_teacher_that_knows_its_classes(make: Make) -> None:
    found = check(make())
    assert (found.images, found.recipe_crops) == (240, 240)
    assert found.top1 == found.top5 == 1
    assert found.recipe_top1 == 1  # crops of one colour without mixing
    assert found.confidence > 0.9
    assert found.warnings == ()
    assert set(found.normalised) == {"inception", "clip", "none"}
    assert str(found).startswith("right on 100.0% of 240 centre crops (top-5 100.0%")


def test_confidence_is_that_of_the_class_it_names(make: Make) -> None:
    found = check(make(sharpness=0.0))
    assert found.confidence == pytest.approx(1 / CLASSES)
    assert found.recipe_confidence == pytest.approx(1 / CLASSES)


def test_crops_are_judged_by_the_class_of_their_larger_part(make: Make) -> None:
    mixing = dataclasses.replace(RECIPES["deit"], size=32, group=16, erase=0.0, rand_augment=None, flip=0.0)
    found = check(dataclasses.replace(make(), recipe=mixing))
    assert found.top1 == 1
    assert 0.3 < found.recipe_top1 < 1  # a mixture of two colours may be near to a third


def test_at_most_so_many_images_are_looked_at(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(teacher_check, "MOST_IMAGES", 100)
    found = check(dataclasses.replace(make(), recipe=dataclasses.replace(RECIPE, group=16)))
    assert (found.images, found.recipe_crops) == (100, 112)  # whole groups


def test_a_slow_teacher_sees_fewer_images(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(teacher_check, "MOST_SECONDS", -1.0)
    assert check(make()).images == 32  # one chunk


def test_the_order_that_timm_has_is_named(make: Make) -> None:
    natural = [str(number) for number in range(CLASSES)]
    with pytest.raises(MismatchError, match=r"classes are in another order.*give --teacher-classes natural") as error:
        check(make(natural))
    assert "on 100.0% with its outputs reordered (as timm's reader sorts folders" in str(error.value)


def test_any_other_order_is_found_and_told(make: Make) -> None:
    order = ["0", "1", "10", "11", "2", "3", "4", "5", "6", "9", "8", "7"]  # the last three are turned round
    with pytest.raises(MismatchError) as error:
        check(make(order))
    assert "(output 11 for '7' (class 9), output 9 for '9' (class 11))" in str(error.value)
    assert "--teacher-classes a file whose line N (from 0) names output N" in str(error.value)


def test_the_option_is_the_one_that_the_teacher_was_given_by(make: Make) -> None:
    with pytest.raises(MismatchError, match="give --second-teacher-classes natural"):
        check(make([str(number) for number in range(CLASSES)]), option="--second-teacher")


def test_a_teacher_that_knows_nothing_is_said_to(make: Make) -> None:
    found = check(make(sharpness=0.0))
    assert len(found.warnings) == 1
    assert found.warnings[0].startswith("the teacher is right on 8.3% of 240 images, where guessing is on 8.3%: ")
    for option in ("--teacher-weights", "--teacher-mean", "--teacher-std", "--teacher-classes"):
        assert option in found.warnings[0]


@pytest.mark.parametrize(("trained", "given"), [("imagenet", "none"), ("inception", "imagenet"), ("none", "clip")])
def test_another_normalisation_that_serves_better_is_named(make: Make, trained: str, given: str) -> None:
    found = check(make(trained=trained, given=given))
    assert found.top1 < 0.9
    assert found.normalised[trained] == 1
    assert f"would be on 100.0% with its input normalised otherwise: --teacher-mean {trained}" in found.warnings[-1]
    assert f"--teacher-std {trained}" in found.warnings[-1]


def test_mistakes_between_two_classes_are_no_other_order() -> None:
    """A teacher that often takes one class for another is bad, not permuted."""
    random = np.random.default_rng(1)
    labels_N = random.integers(0, 10, 2000)
    winners_N = np.where((labels_N == 3) & (random.random(2000) < 0.6), 5, labels_N)
    winners_N = np.where(random.random(2000) < 0.3, random.integers(0, 10, 2000), winners_N)
    refuse_other_order(winners_N, labels_N, [f"class {c}" for c in range(10)])


@pytest.mark.parametrize("classes", [3, 100, 1000])
def test_answers_of_pure_chance_are_no_other_order(classes: int) -> None:
    random = np.random.default_rng(2)
    labels_N, winners_N = random.integers(0, classes, (2, 2000))
    refuse_other_order(winners_N, labels_N, [f"class {c}" for c in range(classes)])


def test_an_order_is_found_though_the_teacher_errs() -> None:
    random = np.random.default_rng(3)
    order_C = random.permutation(100)
    labels_N = random.integers(0, 100, 2000)
    winners_N = np.where(random.random(2000) < 0.5, order_C[labels_N], random.integers(0, 100, 2000))
    with pytest.raises(MismatchError, match="classes are in another order"):
        refuse_other_order(winners_N, labels_N, [f"class {c}" for c in range(100)])


def test_a_store_keeps_the_first_check_and_its_digest(make: Make, tmp_path: Path) -> None:
    job = make()
    storage = StoreWriter(tmp_path / "s.zarr", job.header).storage
    before = summarise(StoreReader(tmp_path / "s.zarr"))
    assert before.teacher_check is None
    found = check(job)
    write_teacher_check(storage, found)
    write_teacher_check(storage, dataclasses.replace(found, images=1))
    after = summarise(StoreReader(tmp_path / "s.zarr"))
    assert after.teacher_check == found
    assert after.digest == before.digest


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"images": 3}', b'"text"', b"\xff", b"null"])
def test_a_damaged_check_is_none(make: Make, tmp_path: Path, content: bytes) -> None:
    writer = StoreWriter(tmp_path / "s.zarr", make().header)
    (tmp_path / "s.zarr" / "teacher_check.json").write_bytes(content)
    assert read_teacher_check(writer.storage) is None
    assert summarise(StoreReader(tmp_path / "s.zarr")).teacher_check is None
