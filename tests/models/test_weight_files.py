"""Weights from elsewhere: every usual wrapping is read, nothing is executed, and what does not fit is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from cskd_pipeline.errors import DataError
from cskd_pipeline.models.weights import fit_weights, load_weights

WEIGHTS = {"weight": torch.ones(2, 3), "bias": torch.zeros(2)}


@pytest.mark.parametrize(
    "content",
    [
        WEIGHTS,
        {"model": WEIGHTS, "epoch": 3},
        {"state_dict": WEIGHTS},
        {"state_dict": {f"module.{key}": value for key, value in WEIGHTS.items()}},
        {"state_dict": {"weight": torch.zeros(1)}, "state_dict_ema": WEIGHTS},
    ],
)
def test_pytorch_files_are_read_in_every_usual_wrapping(content: dict[str, Any], tmp_path: Path) -> None:
    torch.save(content, tmp_path / "weights.pth")
    found = load_weights(tmp_path / "weights.pth")
    assert found.keys() == WEIGHTS.keys() and all(torch.equal(found[key], WEIGHTS[key]) for key in WEIGHTS)


def test_safetensors_files_are_read(tmp_path: Path) -> None:
    save_file(WEIGHTS, tmp_path / "weights.safetensors")
    assert torch.equal(load_weights(tmp_path / "weights.safetensors")["weight"], WEIGHTS["weight"])


class Malicious:
    ran = False

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return setattr, (Malicious, "ran", True)


def test_a_file_that_would_run_code_is_refused(tmp_path: Path) -> None:
    torch.save({"model": Malicious()}, tmp_path / "evil.pth")
    with pytest.raises(DataError, match=r"evil\.pth"):
        load_weights(tmp_path / "evil.pth")
    assert not Malicious.ran


@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors"])
@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut short", b"\xff" * 100])
def test_damaged_files_are_named(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=name):
        load_weights(tmp_path / name)


def test_a_missing_file_and_one_without_tensors_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no weights at"):
        load_weights(tmp_path / "absent.pth")
    torch.save({"epoch": 3}, tmp_path / "empty.pth")
    with pytest.raises(DataError, match="holds no tensors; its keys are epoch"):
        load_weights(tmp_path / "empty.pth")


def test_what_does_not_fit_is_named_with_both_shapes_and_nothing_is_loaded() -> None:
    module = nn.Linear(3, 4)
    before = module.weight.clone()
    weights = {"weight": torch.ones(2, 3), "extra": torch.ones(1)}
    with pytest.raises(DataError) as caught:
        fit_weights(module, weights, source="there.pth")
    for part in ("there.pth", "weight is (2, 3) where (4, 3) is needed", "missing bias", "unknown extra"):
        assert part in str(caught.value)
    assert torch.equal(module.weight, before)


def test_keys_that_may_differ_keep_their_own_values() -> None:
    first, second = nn.Linear(3, 3), nn.Linear(3, 4)
    module, own = nn.Sequential(first, second), second.weight.clone()
    weights = {"0.weight": torch.ones(3, 3), "0.bias": torch.ones(3), "1.weight": torch.ones(9, 3)}
    assert fit_weights(module, weights, source="there", may_differ=("1.",)) == ("1.weight", "1.bias")
    assert torch.equal(second.weight, own) and torch.equal(first.bias, torch.ones(3))
