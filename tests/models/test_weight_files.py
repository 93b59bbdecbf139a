"""Weights from elsewhere: every usual wrapping is read, nothing is executed, and what does not fit is named."""

from __future__ import annotations

import argparse
import io
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
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


WRAPPED = {
    "torch.compile": ("_orig_mod.", {}),
    "compiled, then DDP": ("module._orig_mod.", {}),
    "DDP, then compiled": ("_orig_mod.module.", {}),
    "Lightning": ("model.", {"criterion.weight": torch.ones(5)}),
    "Lightning, compiled": ("model._orig_mod.", {}),
    "an average": ("module.", {"n_averaged": torch.tensor(3)}),
    "any one name": ("net.", {}),
    "FSDP": ("_fsdp_wrapped_module.", {}),
}


@pytest.mark.parametrize("wrapping", WRAPPED)
def test_names_are_freed_of_what_wrapped_the_network(wrapping: str, tmp_path: Path) -> None:
    prefix, besides = WRAPPED[wrapping]
    own = {"stem.0.weight": torch.ones(2), "head.bias": torch.zeros(2)}
    torch.save({"state_dict": {**{prefix + name: value for name, value in own.items()}, **besides}}, tmp_path / "w.pth")
    found = load_weights(tmp_path / "w.pth")
    assert found.keys() == own.keys() and all(torch.equal(found[name], own[name]) for name in own)


def test_compiled_parts_of_a_network_keep_their_place(tmp_path: Path) -> None:
    torch.save({"stem.weight": torch.ones(1), "blocks.0._orig_mod.weight": torch.ones(1)}, tmp_path / "w.pth")
    assert load_weights(tmp_path / "w.pth").keys() == {"stem.weight", "blocks.0.weight"}


def test_checkpoints_of_training_scripts_are_read_with_all_they_keep_beside_the_weights(tmp_path: Path) -> None:
    beside = {
        "args": argparse.Namespace(lr=0.1, output=Path("out")),
        "metric": np.float64(81.3),
        "best": np.int64(3),
        "history": np.arange(3.0),
        "counts": Counter("ab"),
        "optimizer": {"state": {}, "param_groups": []},
    }
    torch.save({"model": WEIGHTS, "model_ema": WEIGHTS, **beside}, tmp_path / "model_best.pth.tar")
    assert load_weights(tmp_path / "model_best.pth.tar").keys() == WEIGHTS.keys()


def test_a_pickled_network_is_refused_with_a_remedy(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "net.pth")
    with pytest.raises(DataError, match=r"torch\.nn\.modules\.linear\.Linear.*save the weights alone"):
        load_weights(tmp_path / "net.pth")


def archive(content: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        for name, data in content.items():
            file.writestr(name, data)
    return out.getvalue()


OTHER = {
    "is empty": b"",
    "is a web page": b"\n<!DOCTYPE html><html></html>",
    "is a pointer of Git LFS": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
    r"is a zip archive without a checkpoint \(it holds a\.txt\)": archive({"a.txt": b"a"}),
    "is a TorchScript program": archive({"m/constants.pkl": b"", "m/data.pkl": b""}),
    "is a tar archive": b"name".ljust(257, b"\0") + b"ustar\0" + bytes(300),
    "is compressed with gzip": b"\x1f\x8b\x08 more",
    "is no file of weights": b'{"error": "not found"}',
}


@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors"])
@pytest.mark.parametrize("said", OTHER)
def test_files_that_are_something_else_are_named_as_that(name: str, said: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(OTHER[said])
    with pytest.raises(DataError, match=f"{name} .*{said}"):
        load_weights(tmp_path / name)


def test_a_folder_is_named_as_that(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is a folder; give the file"):
        load_weights(tmp_path)


def test_contents_decide_about_the_format(tmp_path: Path) -> None:
    save_file(WEIGHTS, tmp_path / "weights.pth")
    torch.save(WEIGHTS, tmp_path / "weights.safetensors")
    assert load_weights(tmp_path / "weights.pth").keys() == load_weights(tmp_path / "weights.safetensors").keys()


ENTRIES = {
    "state_dict": {f"model.{name}": value for name, value in WEIGHTS.items()}
    | {f"ema_model.module.{name}": value + 1 for name, value in WEIGHTS.items()},
    "state_dict_ema": {name: value + 2 for name, value in WEIGHTS.items()},
    "nets": {"teacher": {name: value + 3 for name, value in WEIGHTS.items()}, "steps": 5},
    "optimizer": {"state": {0: {"exp_avg": torch.ones(1)}}},
}


@pytest.mark.parametrize(
    ("entry", "added"),
    [(None, 2), ("state_dict_ema", 2), ("state_dict", 0), ("state_dict.ema_model.module", 1), ("nets.teacher", 3)],
)
def test_an_entry_is_taken_and_that_is_said(entry: str | None, added: int, tmp_path: Path) -> None:
    torch.save(ENTRIES, tmp_path / "w.ckpt")
    said: list[object] = []
    found = load_weights(tmp_path / "w.ckpt", entry=entry, option="--teacher-entry", watch=said.append)
    assert found.keys() == WEIGHTS.keys() and all(torch.equal(found[key], WEIGHTS[key] + added) for key in WEIGHTS)
    others = [name for name in ("state_dict", "state_dict_ema", "nets.teacher") if name != (entry or "state_dict_ema")]
    assert said == [
        f"{tmp_path / 'w.ckpt'}: took the weights in {entry or 'state_dict_ema'}, it also has {', '.join(others)} "
        "(--teacher-entry takes another)"
    ]


def test_what_there_is_no_choice_of_is_not_mentioned(tmp_path: Path) -> None:
    said: list[object] = []
    for content in (WEIGHTS, {"model": WEIGHTS}):
        torch.save(content, tmp_path / "w.pth")
        load_weights(tmp_path / "w.pth", watch=said.append)
    assert not said


def test_an_unknown_entry_is_refused_with_those_there_are(tmp_path: Path) -> None:
    torch.save(ENTRIES, tmp_path / "w.ckpt")
    with pytest.raises(DataError, match=r"no entry 'ema'; give entry one of state_dict, state_dict_ema, nets\.teacher"):
        load_weights(tmp_path / "w.ckpt", entry="ema")
    torch.save({"student": WEIGHTS, "teacher": WEIGHTS}, tmp_path / "w.pth")
    with pytest.raises(DataError, match="says not which of its entries are the weights; give entry one of student, te"):
        load_weights(tmp_path / "w.pth")
    assert load_weights(tmp_path / "w.pth", entry="teacher").keys() == WEIGHTS.keys()


@pytest.mark.parametrize("name", ["test_vit", "deit_tiny_distilled_patch16_224"])
def test_position_embeddings_of_another_size_are_resampled_and_that_is_said(name: str) -> None:
    args = {} if name == "test_vit" else {"embed_dim": 24, "depth": 1, "num_heads": 2}
    small, large = (timm.create_model(name, img_size=size, num_classes=3, **args) for size in (64, 160))
    said: list[str] = []
    assert fit_weights(large, small.state_dict(), source="w.pth", watch=said.append) == ()
    before, after = (tuple(model.pos_embed.shape) for model in (small, large))
    assert said == [f"w.pth: pos_embed resampled from {before} to {after}"]
    assert torch.equal(large.blocks[0].attn.qkv.weight, small.blocks[0].attn.qkv.weight)
    said.clear()
    fit_weights(small, small.state_dict(), source="w.pth", watch=said.append)
    assert not said


def test_what_timms_filter_does_not_mend_is_named_as_it_is_in_the_file() -> None:
    model = timm.create_model("test_vit", img_size=64, num_classes=3)
    wrong = {**timm.create_model("test_vit", img_size=160, num_classes=3).state_dict(), "extra": torch.ones(1)}
    with pytest.raises(DataError, match=r"pos_embed is .* is needed; unknown extra") as caught:
        fit_weights(model, wrong, source="w.pth")
    assert "unknown extra" in caught.value.details


def test_all_that_does_not_fit_is_in_the_details() -> None:
    module = nn.Sequential(*(nn.Linear(1, 1) for _ in range(4)))
    with pytest.raises(DataError, match=r"missing 0\.weight, 0\.bias, 1\.weight and 5 more; unknown a") as caught:
        fit_weights(module, {"a": torch.ones(1)}, source="w.pth")
    assert caught.value.details == (*(f"missing {key}" for key in module.state_dict()), "unknown a")
