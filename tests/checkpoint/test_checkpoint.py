"""Checkpoints survive full disks and crashes, hold no code, and say when they are damaged."""

from __future__ import annotations

import errno
import os
import resource
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import pytest
import torch

from cskd_pipeline.checkpoint import load_state, read_metadata, save_model, save_state
from cskd_pipeline.errors import DataError, RetryError
from cskd_pipeline.models.weights import load_weights
from cskd_pipeline.storage.durable import write_atomic

STATE: dict[str, Any] = {"weights": {"a": torch.arange(4.0)}, "epoch": 3, "best": None, "group": [{"lr": 0.1}]}


def test_state_returns_as_it_was(tmp_path: Path) -> None:
    save_state(tmp_path / "last.pt", STATE)
    found = load_state(tmp_path / "last.pt")
    assert torch.equal(found["weights"].pop("a"), STATE["weights"]["a"])
    assert found == {**STATE, "weights": {}}
    assert [file.name for file in tmp_path.iterdir()] == ["last.pt"]


@pytest.mark.parametrize("keep", [0, 10, 0.5, 0.99])
def test_a_truncated_state_is_named(keep: float, tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    save_state(path, STATE)
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content)) if keep < 1 else int(keep)])
    with pytest.raises(DataError, match=r"last\.pt is damaged"):
        load_state(path)


def test_a_foreign_file_is_not_taken_for_a_state(tmp_path: Path) -> None:
    torch.save({"model": {}}, tmp_path / "last.pt")
    with pytest.raises(DataError, match="version None"):
        load_state(tmp_path / "last.pt")


SAVERS: list[Callable[[Path, torch.Tensor], None]] = [
    lambda path, tensor: save_state(path, {"tensor": tensor}),
    lambda path, tensor: save_model(path, {"tensor": tensor}, metadata={}),
]


@pytest.mark.parametrize("save", SAVERS, ids=["state", "model"])
def test_a_file_too_large_for_the_storage_leaves_the_old_one(
    save: Callable[[Path, torch.Tensor], None], tmp_path: Path
) -> None:
    path = tmp_path / "file.safetensors"
    save(path, torch.zeros(8))
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, limits[1]))
    try:
        with pytest.raises(RetryError, match=r"cannot write .*file\.safetensors"):
            save(path, torch.zeros(1 << 16))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["file.safetensors"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EDQUOT])
def test_a_disk_that_fails_only_when_synced_leaves_the_old_file(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "last.pt"
    save_state(path, STATE)
    before = path.read_bytes()

    def fail(descriptor: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(RetryError, match=os.strerror(code)) as caught:
        save_state(path, {"epoch": 4})
    assert caught.value.exit_code == 75 and path.read_bytes() == before


def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomic(path, lambda file: file.write(b"old"))

    def interrupted(file: BinaryIO) -> None:
        file.write(b"ne")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomic(path, interrupted)
    assert path.read_bytes() == b"old" and [file.name for file in tmp_path.iterdir()] == ["file"]


def test_a_folder_that_is_gone_is_worth_a_retry(tmp_path: Path) -> None:
    with pytest.raises(RetryError, match="No such file"):
        save_state(tmp_path / "unmounted" / "last.pt", STATE)


def test_models_carry_what_built_them(tmp_path: Path) -> None:
    path = tmp_path / "best.safetensors"
    save_model(path, {"a": torch.arange(6.0).reshape(2, 3).T}, metadata={"student": {"classes": 5}, "epoch": 3})
    assert read_metadata(path) == {"format": "pt", "student": {"classes": 5}, "epoch": 3}
    assert torch.equal(load_weights(path)["a"], torch.arange(6.0).reshape(2, 3).T)
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(DataError, match=r"best\.safetensors"):
        read_metadata(path)
