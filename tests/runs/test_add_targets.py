"""Targets that a store lacks come from its own teacher, into a store beside it, and both train as one."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from toys import STUDENT_ARGS

import cskd_pipeline as cskd
from cskd_pipeline.errors import DataError, MismatchError, UsageError
from cskd_pipeline.losses import global_logits, soft_target_cross_entropy
from cskd_pipeline.replay import Canary, stored_targets
from cskd_pipeline.store import StoreReader, StoreWriter

SIZES: dict[str, Any] = {"batch_size": 16, "epochs": 1, "workers": 0, "canary": 1.0}


@pytest.fixture
def poor(toy_store: Path, tmp_path: Path) -> Path:
    """`toy_store` without the true classes' probabilities."""
    cskd.export_labels(str(toy_store), str(tmp_path / "poor.zarr"), targets="hard,soft")
    return tmp_path / "poor.zarr"


def losses(stores: Any, toy: Path, name: str) -> torch.Tensor:
    labels, objective = cskd.open(stores, data=toy), cskd.objective(name)
    student = labels.student("deit_ti", objective, args=STUDENT_ARGS)
    with labels.loader(objective, student, **SIZES) as loader:
        return torch.cat([objective(student(pixels), y, targets) for pixels, y, targets in loader])


def files(store: Path) -> dict[str, tuple[int, int]]:
    return {str(file): (file.stat().st_mtime_ns, file.stat().st_size) for file in store.rglob("*") if file.is_file()}


def test_added_targets_train_as_those_made_with_the_others(
    toy_store: Path, poor: Path, toy: Path, teacher_weights: Path, tmp_path: Path
) -> None:
    with pytest.raises(MismatchError, match=f"no truth .*add-targets {poor} --targets truth --out NEW`"):
        losses(poor, toy, "nkd")
    before, out = files(poor), tmp_path / "truth.zarr"
    done = cskd.add_targets(
        str(poor), targets="truth", data=toy, teacher_weights=teacher_weights, workers=0, device="cpu", out=out
    )
    assert done.crops == 220 and files(poor) == before
    for name in ("nkd", "dkd"):
        assert torch.equal(losses([poor, out], toy, name), losses(toy_store, toy, name))
    assert torch.equal(losses([out, poor], toy, "kd"), losses(poor, toy, "kd"))
    fidelity = cskd.inspect(out).seeds[0].fidelity["truth"]
    assert 0 < fidelity["probability"] < 1.3e-4
    assert not cskd.verify(
        str(out), data=toy, teacher_weights=teacher_weights, crops=16, workers=0, device="cpu"
    ).failures


def test_stores_that_do_not_belong_together_are_refused(
    poor: Path, toy: Path, teacher_weights: Path, tmp_path: Path
) -> None:
    header = StoreReader(poor).header

    def other(name: str, **changed: Any) -> Path:
        encodings = {"truth": {"positions": 16, "classes": 3}}
        StoreWriter(tmp_path / name, dataclasses.replace(header, encodings=encodings, **changed))
        return tmp_path / name

    crops = other("crops", recipe={**header.recipe, "key": 7})
    with pytest.raises(MismatchError, match="of different crops: key is 0 there, 7 here"):
        cskd.open([poor, crops], data=toy)
    pixels = other("data", data={**header.data, "digest": "0" * 32})
    with pytest.raises(MismatchError, match="with digest 00000"):
        cskd.open([poor, pixels], data=toy)
    with pytest.raises(DataError, match=r"incomplete|no seed"):
        losses([poor, other("empty")], toy, "nkd")
    of_another = other("teacher", teacher={**header.teacher, "model": "test_resnet2"})
    with pytest.raises(MismatchError, match="of different teachers: model is test_resnet there, test_resnet2 here"):
        both = [StoreReader(poor), StoreReader(of_another)]
        stored_targets(both, needs=frozenset({"soft", "truth"}), canary=Canary(0))
    with pytest.raises(UsageError, match="no label store is given"):
        cskd.open([], data=toy)
    with pytest.raises(UsageError, match="is the store itself"):
        cskd.add_targets(str(poor), targets="truth", data=toy, out=poor)
    with pytest.raises(UsageError, match="--targets names 'truht'"):
        cskd.add_targets(str(poor), targets="truht", data=toy, out=tmp_path / "new")
    with pytest.raises(DataError, match=r"seed 9 .*incomplete.* add to"):
        cskd.add_targets(str(poor), targets="truth", seeds=9, data=toy, out=tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_two_teachers_labels_reach_the_heads_that_learn_from_them(toy_store: Path, toy: Path) -> None:
    labels, objective = cskd.open([toy_store, toy_store], data=toy), cskd.objective("civt")
    student = labels.student(
        "civt_ti", objective, args={"embed_dim": 16, "depth": 1, "num_heads": 2, "patch_size": 8, "img_size": 32}
    )
    with labels.loader(objective, student, **SIZES) as loader:
        pixels, y, targets = next(iter(loader))
        assert targets is not None and targets.second is not None
        output = student(pixels)
        expected = soft_target_cross_entropy(output.cls_BC, y.probabilities_BC(3))
        for head, said in ((output.conv_BC, targets), (output.inv_BC, targets.second)):
            assert head is not None
            teacher = global_logits(said).log_softmax(1)
            expected = expected + (teacher.exp() * (teacher - head.log_softmax(1))).sum(1)
        torch.testing.assert_close(objective(output, y, targets), expected)
    for stores in ([toy_store], [toy_store] * 3):
        with pytest.raises(UsageError, match=f"two teachers, found {len(stores)} store.*; give one of each"):
            cskd.open(stores, data=toy).loader(objective, student, **SIZES)
    with pytest.raises(
        UsageError, match="civt learns from two teachers, and --teacher is one; give --second-teacher too"
    ):
        cskd.TrainRequest.of(data="d", teacher="resnet18", objective="civt").make_objective()
