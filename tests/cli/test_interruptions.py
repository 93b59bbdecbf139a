"""What goes wrong during the work: what is finished stays, and the same command continues from there."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import shutil
import signal
import tarfile
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from cskd_pipeline.labelling.units import ClaimedUnits
from cskd_pipeline.objectives.cskd import Cskd
from cskd_pipeline.store import StoreWriter
from cskd_pipeline.training.learner import Learner


def failing_after(times: int, original: Any, failure: Any) -> Any:
    """`original`, but its call number `times` (from 0) does `failure` first."""
    calls = iter(range(1_000_000))

    def call(*args: Any, **settings: Any) -> Any:
        if next(calls) == times:
            failure()
        return original(*args, **settings)

    return call


def raising(error: BaseException) -> Any:
    def fail() -> None:
        raise error

    return fail


def on_disk(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def assert_same_weights(ours: Path, theirs: Path) -> None:
    for name in ("last.safetensors", "ema.safetensors", "best.safetensors"):
        found, expected = load_file(ours / name), load_file(theirs / name)
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[key], expected[key]) for key in expected)


@pytest.fixture
def broken(toy: Path, tmp_path: Path) -> Path:
    """The toy data with one image whose second half is gone; its header is well."""
    data = Path(shutil.copytree(toy, tmp_path / "data"))
    with tarfile.open(data / "train-0.tar") as archive:
        member = archive.getmember("img00004.jpg")
    with (data / "train-0.tar").open("r+b") as file:
        file.seek(member.offset_data + member.size // 2)
        file.write(bytes(member.size - member.size // 2))
    return data


def test_precompute_names_a_broken_image_and_commits_nothing_of_its_block(
    broken: Path, tmp_path: Path, command: Any, precompute: list[object]
) -> None:
    outcome = command(*precompute, "--no-teacher-check", "--data", broken, "--out", tmp_path / "new")
    assert outcome.code == 3
    for text in ("img00004", "train-0.tar", "cannot be decoded", "replace or remove"):
        assert text in outcome.error
    progress = json.loads(command("status", tmp_path / "new", "--json").out)
    assert progress["complete_seeds"] == [] and progress["writers"] == []


def test_train_names_a_broken_image(broken: Path, tmp_path: Path, command: Any, train: list[object]) -> None:
    all_of_it = ("--size", "32", "--batch-size", "22")
    outcome = command(*train, *all_of_it, "--data", broken, "--out", tmp_path / "new")
    assert outcome.code == 3
    for text in ("img00004", "train-0.tar", "cannot be decoded", "replace or remove"):
        assert text in outcome.error
    assert not (tmp_path / "new" / "last.pt").exists()


def test_index_check_names_a_broken_image(broken: Path, tmp_path: Path, command: Any) -> None:
    outcome = command("index", "--data", broken, "--check", "--out", tmp_path / "new")
    assert outcome.code == 3
    assert "img00004" in outcome.err and "1 of 110 images are broken" in outcome.error
    assert not (tmp_path / "new").exists()


def test_a_damaged_shard_is_named_by_train_and_verify(
    store: Path, tmp_path: Path, command: Any, train: list[object]
) -> None:
    shard = next(path for path in sorted((store / "seed-000000").rglob("*")) if path.match("hard*/c/1/*"))
    content = bytearray(shard.read_bytes())
    content[len(content) // 3] ^= 0x10
    shard.write_bytes(content)
    before = on_disk(store)
    trained = command(*train, "--labels", store, "--out", tmp_path / "run")
    assert trained.code == 3
    assert str(shard) in trained.error
    assert "damaged" in trained.error
    assert "cskd-pipeline repair" in trained.error
    verified = command("verify", store)
    assert verified.code == 3
    assert "failed verification: bad files: 1" in verified.error
    assert str(shard) in verified.out
    found = json.loads(command("verify", store, "--json").out)
    assert [file["path"] for file in found["bad_files"]] == [str(shard)]
    assert on_disk(store) == before


def test_precompute_mends_a_damaged_block_whose_commit_is_deleted(
    store: Path, finished_store: Path, command: Any, precompute: list[object]
) -> None:
    shard = next(path for path in sorted((store / "seed-000001").rglob("*")) if path.match("hard*/c/2/*"))
    shard.write_bytes(b"")
    (store / "seed-000001/commits/000002.json").unlink()
    assert command(*precompute, "--seeds", "0:2", "--out", store).code == 0
    assert on_disk(store) == on_disk(finished_store)


@pytest.mark.parametrize("written", [0, 7, 40])
def test_precompute_goes_on_after_the_disk_was_full(
    written: int,
    tmp_path: Path,
    finished_store: Path,
    command: Any,
    precompute: list[object],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    words = [*precompute, "--seeds", "0:2", "--out", tmp_path / "new"]
    full = OSError(errno.ENOSPC, "No space left on device")
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", failing_after(written, os.fsync, raising(full)))
        outcome = command(*words)
    assert outcome.code == 75
    for text in (str(tmp_path / "new"), "No space left on device", "same command again"):
        assert text in outcome.error
    assert command(*words).code == 0
    assert on_disk(tmp_path / "new") == on_disk(finished_store)


def test_precompute_goes_on_after_the_disk_was_full_for_the_very_first_file(
    tmp_path: Path, finished_store: Path, command: Any, precompute: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [*precompute, "--seeds", "0:2", "--out", tmp_path / "new"]
    full = OSError(errno.ENOSPC, "No space left on device")
    with monkeypatch.context() as patched:
        patched.setattr("os.fsync", raising_with_arguments(full))
        outcome = command(*words)
    assert outcome.code == 75
    assert "No space left on device" in outcome.error
    assert command(*words).code == 0
    assert on_disk(tmp_path / "new") == on_disk(finished_store)


def raising_with_arguments(error: BaseException) -> Any:
    def fail(*args: Any, **settings: Any) -> None:
        raise error

    return fail


@pytest.mark.parametrize("written", [0, 3, 9])
def test_train_goes_on_after_the_disk_was_full(
    written: int,
    tmp_path: Path,
    finished_run: Path,
    finished_store: Path,
    command: Any,
    train: list[object],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    words = [*train, "--labels", finished_store, "--out", tmp_path / "new"]
    full = OSError(errno.ENOSPC, "No space left on device")
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", failing_after(written, os.fsync, raising(full)))
        outcome = command(*words)
    assert outcome.code == 75
    assert "No space left on device" in outcome.error
    assert str(tmp_path / "new") in outcome.error
    assert command(*words, "--resume").code == 0
    assert_same_weights(tmp_path / "new", finished_run)


def test_ctrl_c_keeps_the_committed_blocks_and_the_same_command_goes_on(
    tmp_path: Path, finished_store: Path, command: Any, precompute: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [*precompute, "--seeds", "0:2", "--out", tmp_path / "new"]
    with monkeypatch.context() as patched:
        stopping = failing_after(3, StoreWriter.write_block, raising(KeyboardInterrupt()))
        patched.setattr(StoreWriter, "write_block", stopping)
        outcome = command(*words)
    assert outcome.code == 75
    for text in ("3 blocks were committed", str(tmp_path / "new"), "same command to continue"):
        assert text in outcome.error
    assert json.loads(command("status", tmp_path / "new", "--json").out)["seeds"][0]["done"] == 3
    again = command(*words)
    assert again.code == 0
    assert "3 of 8 blocks are committed already" in again.err
    assert on_disk(tmp_path / "new") == on_disk(finished_store)


def test_ctrl_c_outside_of_the_work_is_no_traceback(
    tmp_path: Path, command: Any, precompute: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cskd_pipeline.models.teacher.load.load_teacher", raising_with_arguments(KeyboardInterrupt()))
    outcome = command(*precompute, "--out", tmp_path / "new")
    assert outcome.code == 75
    assert "run the same command again" in outcome.error


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_training_at_a_checkpoint_and_resume_ends_in_the_same_weights(
    number: signal.Signals,
    tmp_path: Path,
    finished_run: Path,
    finished_store: Path,
    command: Any,
    train: list[object],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    words = [*train, "--labels", finished_store, "--out", tmp_path / "new"]
    with monkeypatch.context() as patched:
        stopping = failing_after(2, Learner.update, lambda: os.kill(os.getpid(), number))
        patched.setattr(Learner, "update", stopping)
        outcome = command(*words)
    assert outcome.code == 75
    for text in ("stopped at epoch 1, update 3 of 6", "--resume"):
        assert text in outcome.error
    resumed = command(*words, "--resume")
    assert resumed.code == 0
    assert "epoch 1, update 4" in resumed.err
    assert_same_weights(tmp_path / "new", finished_run)


def test_a_loss_that_is_not_finite_ends_training_before_anything_is_saved(
    tmp_path: Path, finished_store: Path, command: Any, train: list[object]
) -> None:
    huge = ("--lr", "1e36", "--scheduler", "constant")
    outcome = command(*train, "--labels", finished_store, *huge, "--out", tmp_path / "new")
    assert outcome.code == 3
    for text in ("epoch 1", "loss is nan", "lower learning rate", "no checkpoint was written yet"):
        assert text in outcome.error
    assert not (tmp_path / "new" / "last.pt").exists()


def test_a_loss_that_is_not_finite_keeps_the_last_checkpoint(
    tmp_path: Path, finished_store: Path, command: Any, train: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [*train, "--labels", finished_store, "--epochs", "2", "--out", tmp_path / "new"]
    kept: dict[str, bytes] = {}
    calls = iter(range(1_000_000))
    loss = Cskd.__call__

    def diverging(self: Cskd, *args: Any) -> Any:
        if next(calls) < 8:
            return loss(self, *args)
        kept.update(on_disk(tmp_path / "new"))
        return loss(self, *args) * float("nan")

    with monkeypatch.context() as patched:
        patched.setattr(Cskd, "__call__", diverging)
        outcome = command(*words)
    assert outcome.code == 3
    for text in ("epoch 2, update 3 of 6", "loss is nan", "last.pt", "is from before"):
        assert text in outcome.error
    assert on_disk(tmp_path / "new") == kept
    assert command(*words, "--resume").code == 0


def test_a_resumed_run_keeps_its_seeds_though_the_store_has_got_more(
    tmp_path: Path, command: Any, train: list[object], precompute: list[object]
) -> None:
    store = tmp_path / "labels.zarr"
    assert command(*precompute, "--seeds", "0:2", "--out", store).code == 0
    words = [*train, "--labels", store, "--out", tmp_path / "new"]
    assert command(*words).code == 0
    assert command(*precompute, "--seeds", "2", "--out", store).code == 0
    again = command(*words, "--resume")
    assert again.code == 0
    assert "is finished" in again.err


def test_termination_stops_precompute_like_ctrl_c(
    tmp_path: Path, command: Any, precompute: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [*precompute, "--seeds", "0:2", "--out", tmp_path / "labels.zarr"]
    with monkeypatch.context() as patched:
        stopping = failing_after(1, StoreWriter.write_block, lambda: os.kill(os.getpid(), signal.SIGTERM))
        patched.setattr(StoreWriter, "write_block", stopping)
        outcome = command(*words)
    assert outcome.code == 75
    assert "the same command to continue" in outcome.error
    assert command(*words).code == 0


def test_a_signal_that_arrives_in_a_finalizer_is_not_lost(
    tmp_path: Path, command: Any, precompute: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python drops exceptions there, and memory of crops comes back through finalizers all the time."""
    progress = ClaimedUnits.progress

    def interrupted(units: ClaimedUnits, crops: int) -> None:
        progress(units, crops)
        weakref.finalize(set(), os.kill, os.getpid(), signal.SIGTERM)

    words = [*precompute, "--seeds", "0:2", "--no-teacher-check", "--out", tmp_path / "labels.zarr"]
    with monkeypatch.context() as patched:
        patched.setattr(ClaimedUnits, "progress", interrupted)
        outcome = command(*words)
    assert outcome.code == 75
    assert "the same command to continue" in outcome.error


@pytest.mark.parametrize("objective", ["cskd", "supervised"])
def test_pixels_that_drift_stop_training(
    objective: str,
    tmp_path: Path,
    finished_store: Path,
    command: Any,
    train: list[object],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from cskd_pipeline.data import SampleIndex

    decode = SampleIndex.decode_parts
    monkeypatch.setattr(SampleIndex, "decode_parts", lambda *args: [part ^ 1 for part in decode(*args)])
    words = [*train, "--labels", finished_store, "--objective", objective, "--canary", "0"]
    outcome = command(*words, "--out", tmp_path / "new")
    assert outcome.code == 3
    for text in ("checksum", "16 of 16 checked crops differ", "libraries have changed", "inspect"):
        assert text in outcome.error


@pytest.mark.parametrize("stage", ["precompute", "train"])
def test_a_worker_that_is_killed_is_named_wherever_the_command_is(
    stage: str, tmp_path: Path, command: Any, train: list[object], precompute: list[object], monkeypatch: Any
) -> None:
    def kill() -> None:
        for worker in multiprocessing.active_children():
            os.kill(worker.pid, signal.SIGKILL)

    target, name = (StoreWriter, "write_block") if stage == "precompute" else (Learner, "update")
    monkeypatch.setattr(target, name, failing_after(1, getattr(target, name), kill))
    words = [*train, "--size", "32", "--batch-size", "22"] if stage == "train" else [*precompute, "--seeds", "0:40"]
    outcome = command(*words, "--workers", "1", "--out", tmp_path / "new")
    assert outcome.code == 75
    for text in ("a process that makes crops was killed", "--workers"):
        assert text in outcome.error
