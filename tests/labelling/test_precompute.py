"""Stage 1: the store holds what the teacher says about every crop, however the work was cut up."""

from __future__ import annotations

import dataclasses
import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cskd_pipeline.crops.recipe import RECIPES
from cskd_pipeline.data import open_split
from cskd_pipeline.errors import DataError, MismatchError, StoppedError, UsageError
from cskd_pipeline.labelling.gap import warn_of_gap
from cskd_pipeline.labelling.job import PrecomputeJob, precompute
from cskd_pipeline.labelling.recompute import recompute
from cskd_pipeline.labels import Encoding, FullEncoding, HardEncoding, SoftEncoding
from cskd_pipeline.loading import CropLoader
from cskd_pipeline.loading.order import Batch
from cskd_pipeline.models.teacher.load import load_teacher
from cskd_pipeline.models.teacher.teacher import Teacher
from cskd_pipeline.seeds import parse_seeds
from cskd_pipeline.store import Claims, LostClaimError, StoreReader, StoreWriter, summarise
from cskd_pipeline.store.commit import Commit

RECIPE = dataclasses.replace(RECIPES["deit"], size=32, group=16)


BOTH: dict[str, Encoding] = {
    "hard": HardEncoding(positions=16, classes=3),
    "soft": SoftEncoding(positions=16, classes=3),
}
FULL: dict[str, Encoding] = {"full": FullEncoding(positions=16, classes=3, dtype="float32")}


def make_job(
    toy: Path, weights: Path, encodings: dict[str, Encoding] | None = None, **changes: object
) -> PrecomputeJob:
    index = open_split(str(toy), "train")
    teacher = load_teacher(
        "test_resnet",
        classes=3,
        size=32,
        device=torch.device("cpu"),
        weights=weights,
        args={"output_stride": 8},
        chunk=16,
    )
    job = PrecomputeJob(index, RECIPE, teacher, encodings or BOTH, block=32)
    return dataclasses.replace(job, **changes)


def fill(job: PrecomputeJob, path: Path, seeds: list[int], *, workers: int = 0, augment: bool = True) -> int:
    writer = StoreWriter(path, job.header)
    return precompute(job, writer, seeds, workers=workers, augment=augment)


def content(path: Path) -> dict[str, bytes]:
    return {str(p.relative_to(path)): p.read_bytes() for p in path.rglob("*") if p.is_file()}


def test_stored_logits_are_those_of_each_crop_alone(toy: Path, teacher_weights: Path, tmp_path: Path) -> None:
    job = make_job(toy, teacher_weights, FULL)
    fill(job, tmp_path / "s.zarr", [3])
    store = StoreReader(tmp_path / "s.zarr")
    total, spec = len(job.index), job.teacher.spec
    loader = CropLoader(job.index, RECIPE, workers=0)
    for block in range(store.header.blocks):
        rows_SXC = store.encodings["full"].tabulate(store.read(3, block, "full"), ratio_steps=0)
        crc = store.read_crop_crc(3, block)
        for row, sample in list(enumerate(store.header.rows(block)))[::7]:
            pair = np.unique([sample, RECIPE.partners(3, [sample], total=total)[0]])
            partners = RECIPE.partners(3, pair, total=total)
            batch = next(loader.load([Batch(np.full(len(pair), 3), pair, partners)]))
            at = int(np.flatnonzero(pair == sample)[0])
            pixels = batch.pixels(RECIPE, mean=spec.mean, std=spec.std, device=torch.device("cpu"))
            dense, global_ = job.teacher(pixels)
            expected = torch.cat([global_[at : at + 1], dense[at]]).numpy()
            assert rows_SXC[row].tobytes() == expected.tobytes()
            assert crc[row] == batch.crc_B[at]


def test_the_store_does_not_depend_on_workers_or_interruptions(
    toy: Path, teacher_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_job(toy, teacher_weights)
    assert fill(job, tmp_path / "once.zarr", [0, 1]) == 2 * len(job.index)
    fill(job, tmp_path / "workers.zarr", [0, 1], workers=2)
    assert content(tmp_path / "workers.zarr") == content(tmp_path / "once.zarr")
    fill(job, tmp_path / "device.zarr", [0, 1], workers=1, augment=False)
    assert content(tmp_path / "device.zarr") == content(tmp_path / "once.zarr")

    real, calls = StoreWriter.write_block, []

    def interrupted(self: StoreWriter, *args: object, **kwargs: object) -> bool:
        calls.append(args)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return real(self, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(StoreWriter, "write_block", interrupted)
    with pytest.raises(StoppedError, match="3 blocks were committed"):
        fill(job, tmp_path / "stopped.zarr", [0, 1])
    monkeypatch.undo()
    monkeypatch.setenv("CSKD_CACHE", str(toy.parent))
    assert fill(job, tmp_path / "stopped.zarr", [0, 1]) == 2 * len(job.index) - 3 * 32
    assert fill(job, tmp_path / "stopped.zarr", [0, 1]) == 0
    assert content(tmp_path / "stopped.zarr") == content(tmp_path / "once.zarr")


def test_seeds_can_be_added_later(toy: Path, teacher_weights: Path, tmp_path: Path) -> None:
    job = make_job(toy, teacher_weights)
    fill(job, tmp_path / "s.zarr", [0])
    before = content(tmp_path / "s.zarr")
    fill(job, tmp_path / "s.zarr", [0, 7])
    after = content(tmp_path / "s.zarr")
    assert StoreReader(tmp_path / "s.zarr").complete_seeds() == [0, 7]
    assert {name: after[name] for name in before} == before


def test_another_job_is_refused(toy: Path, teacher_weights: Path, tmp_path: Path) -> None:
    job = make_job(toy, teacher_weights)
    fill(job, tmp_path / "s.zarr", [0])
    before = content(tmp_path / "s.zarr")
    for other, field in [
        (
            dataclasses.replace(job, recipe=dataclasses.replace(RECIPE, erase=0.0)),
            "recipe.erase is 0.25 in the store, 0.0",
        ),
        (
            dataclasses.replace(job, encodings={**BOTH, "soft": SoftEncoding(positions=16, classes=3, k=2)}),
            "encodings.soft.k is",
        ),
        (dataclasses.replace(job, index=open_split(str(toy), "test")), "data.digest"),
        (dataclasses.replace(job, block=64), "block is 32 in the store, 64"),
    ]:
        with pytest.raises(MismatchError) as caught:
            fill(other, tmp_path / "s.zarr", [1])
        assert field in str(caught.value)
    assert content(tmp_path / "s.zarr") == before


def test_a_block_that_cuts_groups_is_refused(toy: Path, teacher_weights: Path) -> None:
    with pytest.raises(UsageError, match="block of 24 samples cuts through groups of 16"):
        _ = make_job(toy, teacher_weights, block=24).header


SPILLING: dict[str, Encoding] = {"hard": HardEncoding(positions=16, classes=3, row_bytes=24)}


@pytest.mark.parametrize("encodings", [SPILLING, BOTH, FULL], ids=["spill", "both", "full"])
def test_recompute_agrees_with_an_honest_store_and_finds_a_false_one(
    toy: Path, teacher_weights: Path, tmp_path: Path, encodings: dict[str, Encoding]
) -> None:
    job = make_job(toy, teacher_weights, encodings)
    fill(job, tmp_path / "s.zarr", [0, 1])
    store = StoreReader(tmp_path / "s.zarr")
    again = recompute(job, store, crops=60, key=1, workers=0)
    assert again.crops >= 60 and again.differences == []
    assert all(values["crops"] == again.crops for values in again.fidelity.values())

    writer = StoreWriter(tmp_path / "s.zarr", job.header)
    for seed in (0, 1):
        for block in range(writer.header.blocks):
            turned = np.roll(np.arange(len(writer.header.rows(block))), 1)
            records = {name: store.read(seed, block, name).take(turned) for name in encodings}
            crc = store.read_crop_crc(seed, block)[turned]
            writer.write_block(seed, block, records, crc, versions={}, replace=True)
    again = recompute(job, store, crops=60, key=1, workers=0)
    assert {difference.what for difference in again.differences} == {"pixels", "targets"}
    for name, values in again.fidelity.items():
        assert values["agreement"] < 1 if name == "hard" else values["kl_dense"] > 0.01


def test_fidelity_is_measured_as_blocks_are_made(toy: Path, teacher_weights: Path, tmp_path: Path) -> None:
    fill(make_job(toy, teacher_weights), tmp_path / "s.zarr", [0, 4])
    for seed in summarise(StoreReader(tmp_path / "s.zarr")).seeds:
        assert seed.fidelity["hard"] == {"crops": seed.fidelity["soft"]["crops"], "agreement": 1.0}
        assert 0 < seed.fidelity["hard"]["crops"] <= 16 * seed.blocks
        soft = seed.fidelity["soft"]
        assert soft["kept_dense"] > 0.9 and soft["kept_global"] > 0.9
        assert 0 <= soft["kl_dense"] < 0.05 and 0 <= soft["kl_global"] < 0.05


def test_a_false_fidelity_is_found(toy: Path, teacher_weights: Path, tmp_path: Path) -> None:
    job = make_job(toy, teacher_weights)
    fill(job, tmp_path / "s.zarr", [0])
    for path in (tmp_path / "s.zarr/seed-000000/commits").iterdir():
        commit = Commit.parse(path.read_bytes())
        soft = {**commit.fidelity["soft"], "kl_dense": 1.0}
        path.write_bytes(dataclasses.replace(commit, fidelity={**commit.fidelity, "soft": soft}).text())
    (difference,) = recompute(job, StoreReader(tmp_path / "s.zarr"), crops=1, key=0, workers=0).differences
    assert difference.what == "fidelity" and "kl_dense" in difference.found


def test_recompute_takes_a_set_of_an_odd_size(odd_toy: Path, teacher_weights: Path, tmp_path: Path) -> None:
    job = make_job(odd_toy, teacher_weights, block=112)
    fill(job, tmp_path / "s.zarr", [0])
    store = StoreReader(tmp_path / "s.zarr")
    for key in range(6):
        again = recompute(job, store, crops=60, key=key, workers=0)
        assert again.crops >= 60 and again.differences == []


def test_the_gap_between_the_two_global_logits_is_reported(toy: Path, teacher_weights: Path) -> None:
    lines: list[str] = []
    job = make_job(toy, teacher_weights)
    assert warn_of_gap(job, seed=0, report=lines.append) < 1e-4
    assert lines == []
    job.teacher._model.fc = torch.nn.Sequential(torch.nn.GELU(), job.teacher._model.fc)
    assert warn_of_gap(job, seed=0, report=lines.append) > 1e-2
    assert "not the mean of its dense logits" in lines[0]


def test_logits_that_are_not_finite_stop_before_anything_is_committed(
    toy: Path, teacher_weights: Path, tmp_path: Path
) -> None:
    job = make_job(toy, teacher_weights)
    job.teacher._model.fc.bias[1] = torch.nan
    with pytest.raises(DataError, match="not finite"):
        fill(job, tmp_path / "s.zarr", [0])
    assert StoreReader(tmp_path / "s.zarr").seeds() == []


def test_seeds_are_parsed() -> None:
    assert parse_seeds("7") == [7]
    assert parse_seeds("0:3") == [0, 1, 2]
    assert parse_seeds("5, 0:2,1") == [0, 1, 5]
    for text in ("", "a", "3:1", "3:3", "1-4", "0:", ":5", "0:5:2", "-1", "1,,2", "99999999999"):
        with pytest.raises(UsageError, match="--seeds"):
            parse_seeds(text)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_teacher_that_fails_ends_the_work(
    workers: int, toy: Path, teacher_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_job(toy, teacher_weights)
    real, calls = Teacher.answer, []

    def fails(self: Teacher, pixels: torch.Tensor, **wanted: Any) -> object:
        calls.append(1)
        if len(calls) == 3:
            raise torch.OutOfMemoryError("no memory left")
        return real(self, pixels, **wanted)

    monkeypatch.setattr(Teacher, "answer", fails)
    for _ in range(3):
        calls.clear()
        with pytest.raises(torch.OutOfMemoryError):
            fill(job, tmp_path / "s.zarr", list(range(40)), workers=workers)


def test_an_interruption_does_not_wait_for_the_block(
    toy: Path, teacher_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = dataclasses.replace(make_job(toy, teacher_weights), block=112)  # one block, seven chunks
    real, calls = Teacher.answer, []

    def interrupting(self: Teacher, pixels: torch.Tensor, **wanted: Any) -> object:
        calls.append(1)
        if len(calls) == 2:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.5)  # until the main thread has seen it
        return real(self, pixels, **wanted)

    monkeypatch.setattr(Teacher, "answer", interrupting)
    with pytest.raises(StoppedError, match="0 blocks were committed"):
        fill(job, tmp_path / "s.zarr", [0])
    assert len(calls) <= 3


def test_a_block_that_went_to_another_process_is_left_to_it(
    toy: Path, teacher_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_job(toy, teacher_weights)
    fill(job, tmp_path / "whole.zarr", [0])
    real, lost, said = Claims.confirm, [], []

    def confirm(self: Claims, seed: int, block: int) -> None:
        if block == 1 and not lost:  # it was paused for so long that another took over, wrote and committed the block
            lost.append(block)
            other = StoreReader(tmp_path / "whole.zarr")
            records = {name: other.read(seed, block, name) for name in other.encodings}
            commit = other.commit(seed, block)
            StoreWriter(tmp_path / "s.zarr", job.header).write_block(
                seed,
                block,
                records,
                other.read_crop_crc(seed, block),
                versions=commit.versions,
                fidelity=commit.fidelity,
            )
            raise LostClaimError
        real(self, seed, block)

    monkeypatch.setattr(Claims, "confirm", confirm)
    writer = StoreWriter(tmp_path / "s.zarr", job.header)
    assert precompute(job, writer, [0], workers=0, watch=said.append) == len(job.index)
    assert lost == [1] and any("seed 0 block 1 went to another process" in line for line in said)
    assert content(tmp_path / "s.zarr") == content(tmp_path / "whole.zarr")
