"""A store and a run folder that release 0.1.0 wrote stay of use: read, checked, mended, added to, trained from."""

from __future__ import annotations

import shutil
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

import cskd_pipeline as cskd

HERE = Path(__file__).parent
DIGEST = "5c1f7234438255b646a1f5d2cbc1ae0f"
MACHINE: dict[str, Any] = {"workers": 0, "device": "cpu"}
STUDENT_ARGS = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2}


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the release wrote, and nobody changes."""
    folder = tmp_path_factory.mktemp("old")
    with tarfile.open(HERE / "made_by_0_1_0.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return folder


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The teacher's, drawn again."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [str(HERE), *sys.path])
        from made_before import write_teacher
    path: Path = write_teacher(tmp_path_factory.mktemp("teacher") / "teacher.safetensors")
    return path


@pytest.fixture
def store(unpacked: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(unpacked / "labels.zarr", tmp_path / "labels.zarr"))


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_store_is_inspected(unpacked: Path) -> None:
    found = cskd.inspect(unpacked / "labels.zarr")
    assert found.digest == DIGEST
    assert cskd.status(unpacked / "labels.zarr") is not None


def test_the_store_is_verified_file_by_file(unpacked: Path) -> None:
    found = cskd.verify(unpacked / "labels.zarr")
    assert (found.digest, found.blocks, found.bad, found.failures) == (DIGEST, 8, [], [])


def test_its_crops_are_made_again_to_the_pixel_and_labelled_alike(unpacked: Path, toy: Path, weights: Path) -> None:
    found = cskd.verify(unpacked / "labels.zarr", data=toy, teacher_weights=weights, crops=96, **MACHINE)
    assert found.recomputed is not None
    assert found.recomputed.crops >= 96
    # Another processor may round a logit differently, and so a target; a pixel has no excuse.
    assert [d for d in found.recomputed.differences if d.what == "pixels"] == []
    assert found.recomputed.fidelity["hard"]["agreement"] == pytest.approx(1, abs=1e-3)


def test_a_damaged_block_is_mended(store: Path, toy: Path, weights: Path) -> None:
    (store / "seed-000001/hard/c/2/0").write_bytes(b"damaged")
    (failure,) = cskd.verify(store).failures
    assert "bad files: 1" in failure
    mended = cskd.repair(store, data=toy, teacher_weights=weights, **MACHINE)
    assert len(mended.units) == 1
    assert cskd.verify(store).failures == []


def test_a_seed_is_added_and_no_old_byte_changes(store: Path, toy: Path, weights: Path) -> None:
    before = files(store)
    made = cskd.precompute(
        data=toy,
        teacher="test_resnet",
        teacher_args={"output_stride": 8},
        teacher_weights=weights,
        chunk=16,
        size=32,
        recipe_args={"group": 16},
        seeds=2,
        out=store,
        **MACHINE,
    )
    assert made.crops == 110
    after = files(store)
    assert {name: after.get(name) for name in before} == before
    assert cskd.open(store, data=toy).seeds == (0, 1, 2)


def settings(store: Path, toy: Path) -> dict[str, Any]:
    """Those of the run of 0.1.0."""
    schedule = {"epochs": 2, "warmup_epochs": 0, "batch_size": 16}
    return {
        "labels": store,
        "data": toy,
        "student": "deit_ti",
        "student_args": STUDENT_ARGS,
        **schedule,
        **MACHINE,
    }


def test_a_student_is_trained_from_the_store(unpacked: Path, toy: Path, tmp_path: Path) -> None:
    summary = cskd.train(out=tmp_path / "run", canary=1, **settings(unpacked / "labels.zarr", toy))
    assert summary.updates == 12


def test_the_run_is_scored_as_it_was(unpacked: Path, toy: Path) -> None:
    score = cskd.evaluate(unpacked / "run", data=toy, **MACHINE).scores["three_head"]
    assert score.loss == pytest.approx(1.0850510075688362, abs=1e-5)
    assert score.top1 == pytest.approx(100 / 3)


def test_the_run_is_exported(unpacked: Path, tmp_path: Path) -> None:
    exported = cskd.export(unpacked / "run", tmp_path / "student.safetensors")
    assert exported.file.stat().st_size > 4 * exported.parameters


def test_the_run_is_resumed_and_found_finished(unpacked: Path, toy: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(unpacked / "run", tmp_path / "run"))
    summary = cskd.train(out=run, resume=True, **settings(unpacked / "labels.zarr", toy))
    assert summary.already_finished
    assert summary.epochs == 2
