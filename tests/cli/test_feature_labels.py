"""Features of a CNN and of a vision transformer, from `precompute` on: stored, checked, mended, added and copied."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from test_interruptions import on_disk

VIT_ARGS = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 3, "num_heads": 2}
TARGETS = "hard,features.pooled,features.tokens"
SETTINGS = ("--target-arg", "features.tokens.layers=[0,-1]", "--target-arg", "features.tokens.tokens=5")
SETTINGS += ("--target-arg", "features.tokens.bits=[4,8]")


@pytest.fixture(scope="module")
def vit_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a vision transformer of 4 x 4 patches, random but lively."""
    import timm
    from safetensors.torch import save_file

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        model = timm.create_model("vit_tiny_patch16_224", num_classes=3, **VIT_ARGS)
        for module in model.modules():
            if isinstance(module, torch.nn.Linear):
                module.weight.data.mul_(10)
    path = tmp_path_factory.mktemp("vit") / "vit.safetensors"
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, path)
    return path


@pytest.fixture
def vit(toy: Path, vit_weights: Path) -> list[object]:
    """`precompute` of the toy data with that teacher, but for targets and `--out`: 4 blocks a seed."""
    words: list[object] = ["precompute", "--data", toy, "--teacher", "vit_tiny_patch16_224"]
    for name, value in VIT_ARGS.items():
        words += ["--teacher-arg", f"{name}={value}"]
    words += ["--teacher-weights", vit_weights, "--chunk", 16, "--size", 32, "--recipe-arg", "group=16"]
    return [*words, "--block", 32, "--workers", 0, "--device", "cpu"]


@pytest.fixture
def vit_source(toy: Path, vit_weights: Path) -> list[object]:
    return ["--data", toy, "--teacher-weights", vit_weights, "--workers", 0, "--device", "cpu"]


@pytest.fixture(scope="module")
def made_features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("features") / "labels.zarr"


@pytest.fixture
def features(made_features: Path, command: Any, vit: list[object]) -> Path:
    """A store of hard targets and features of seed 0 that nobody changes."""
    if not made_features.exists():
        outcome = command(*vit, "--targets", TARGETS, *SETTINGS, "--out", made_features)
        assert outcome.code == 0, outcome.err
    return made_features


def header(store: Path) -> Any:
    return json.loads((store / "zarr.json").read_text())["attributes"]


def test_the_feature_of_a_cnn_is_stored_shown_and_computed_again(
    precompute: list[object], toy: Path, teacher_weights: Path, tmp_path: Path, command: Any
) -> None:
    out = tmp_path / "labels.zarr"
    made = command(*precompute, "--targets", "features.pooled", "--target-arg", "features.pooled.bits=4", "--out", out)
    assert made.code == 0, made.err
    assert len(header(out)["encodings"]["features.pooled"]["channels"]) == 96
    shown = command("inspect", out).out
    assert "features.pooled: positions 16, classes 3, channels 96 measured, bits 4\n" in shown
    found = re.search(r"fidelity   seed 0, features\.pooled: cosine (\S+), error (\S+) \(on \d+ crops\)", shown)
    assert found is not None
    assert 0.98 < float(found[1]) < 1 and 0 < float(found[2]) < 0.03
    assert re.search(r"features\.pooled +\d+\.\d\d bytes a crop", shown)
    source = ("--data", toy, "--teacher-weights", teacher_weights, "--workers", 0)
    checked = command("verify", out, *source, "--crops", 16)
    assert checked.code == 0, checked.err
    assert "fidelity of features.pooled targets: error 0." in checked.out and "differences: 0" in checked.out


def test_patch_tokens_are_stored_shown_and_computed_again(
    features: Path, vit_source: list[object], command: Any
) -> None:
    shown = command("inspect", features).out
    line = "channels 2 x 24 measured, layers [0, -1], tokens 5, bits [4, 8]\n"
    assert f"features.tokens: positions 16, classes 3, {line}" in shown and "channels 24 measured, bits 7" in shown
    assert max(map(len, shown.splitlines())) < 300
    measured = json.loads(command("inspect", features, "--json").out)["seeds"][0]["fidelity"]["features.tokens"]
    assert [*measured] == ["crops", "cosine_0", "cosine_last", "error_0", "error_last"]
    assert 0 < measured["error_last"] < 1e-3 < measured["error_0"] < 0.03 and measured["cosine_last"] > 0.999
    checked = command("verify", features, *vit_source, "--crops", 40)
    assert checked.code == 0, checked.err
    assert "fidelity of features.tokens targets: error_0 0.0" in checked.out and "differences: 0" in checked.out


def test_a_damaged_block_of_features_is_made_again_to_the_same_bytes(
    features: Path, vit_source: list[object], tmp_path: Path, command: Any
) -> None:
    store = Path(shutil.copytree(features, tmp_path / "labels.zarr"))
    shards = [store / f"seed-000000/features.{name}/c/{block}/0" for name, block in (("tokens", 1), ("pooled", 3))]
    for shard in shards:
        raw = bytearray(shard.read_bytes())
        raw[len(raw) // 2] ^= 16
        shard.write_bytes(raw)
    found = command("verify", store)
    assert found.code == 3 and all(str(shard) in found.out for shard in shards)
    mended = command("repair", store, *vit_source)
    assert mended.code == 0, mended.err
    assert "2 blocks computed again" in mended.out
    assert on_disk(store) == on_disk(features)


def test_seeds_added_by_the_plain_command_and_stores_begun_with_others_have_the_same_settings(
    features: Path, vit: list[object], tmp_path: Path, command: Any
) -> None:
    store = Path(shutil.copytree(features, tmp_path / "labels.zarr"))
    assert command(*vit, "--seeds", "0:2", "--out", store).code == 0
    other = tmp_path / "other.zarr"
    numbers = tuple(word.replace("[0,-1]", "[0,2]") for word in SETTINGS)  # the last block by its number
    assert command(*vit, "--targets", TARGETS, *numbers, "--seeds", 1, "--out", other).code == 0
    for path in (store, other):
        assert (path / "zarr.json").read_bytes() == (features / "zarr.json").read_bytes()
    parts = [
        {name: raw for name, raw in on_disk(path).items() if name.startswith("seed-000001/")} for path in (store, other)
    ]
    assert parts[0] == parts[1] and len(parts[0]) > 20
    kept = on_disk(features)
    assert {name: raw for name, raw in on_disk(store).items() if name in kept} == kept
    refused = command(*vit, "--targets", TARGETS, *SETTINGS[:4], "--out", store)
    assert refused.code == 4
    assert "encodings.features.tokens.bits is [4, 8] in the store, [4, 4] was asked for" in refused.error
    assert "channels" not in refused.error and len(refused.error) < 300


def test_features_are_added_beside_a_store_without_them(
    features: Path, vit: list[object], vit_source: list[object], tmp_path: Path, command: Any
) -> None:
    poor, out = tmp_path / "poor.zarr", tmp_path / "added.zarr"
    assert command("export-labels", features, poor, "--targets", "hard").code == 0
    assert [*header(poor)["encodings"]] == ["hard"]
    assert not [*poor.glob("seed-000000/features*")]
    words = ["add-targets", poor, "--targets", "features.pooled,features.tokens", *SETTINGS, *vit_source, "--out", out]
    added = command(*words)
    assert added.code == 0, added.err
    assert header(out)["encodings"] == {k: v for k, v in header(features)["encodings"].items() if k != "hard"}
    for shard in features.glob("seed-000000/features*/c/*/0"):
        assert (out / shard.relative_to(features)).read_bytes() == shard.read_bytes()
    before = on_disk(out)
    again = command(*words)
    assert again.code == 0 and on_disk(out) == before
    assert "4 of 4 blocks are committed already" in again.err

    copied = tmp_path / "copied.zarr"
    assert command("export-labels", features, copied, "--targets", "features.pooled").code == 0
    assert [*header(copied)["encodings"]] == ["features.pooled"]
    card = (copied / "README.md").read_text()
    assert 'features_pooled_row = seed["features.pooled"][0]' in card and "channels 24 measured" in card
    assert command("verify", copied).code == 0


TOKENS = ("--targets", "features.tokens")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((*TOKENS, "--target-arg", "features.tokens.layers=[0,3]"), r"has no block 3; it has 3, from 0 to 2"),
        ((*TOKENS, "--target-arg", "features.tokens.layers=[0,2,-1]"), r"name each once"),
        ((*TOKENS, "--target-arg", "features.tokens.layers=[1,0]"), r"layers are \[1, 0\]; name each once, ascending"),
        ((*TOKENS, "--target-arg", "features.tokens.layers=2"), r"layers must be a list .*, found 2"),
        ((*TOKENS, "--target-arg", "features.tokens.layers=all"), r"layers must be a list .*, found 'all'"),
        ((*TOKENS, "--target-arg", "features.tokens.layers=[0,a]"), r"layers must be a list"),
        ((*TOKENS, "--target-arg", "features.tokens.bits=3"), r"bits are 3; choose 4 to 8"),
        ((*TOKENS, "--target-arg", "features.tokens.bits=[4,8]"), r"not one number for each of the layers"),
        ((*TOKENS, "--target-arg", "features.tokens.tokens=17"), r"tokens are 17, the teacher has 16 positions"),
        ((*TOKENS, "--target-arg", "features.tokens.tokens=-1"), r"tokens must be at least 0"),
        (TOKENS, r"tokens are 28, the teacher has 16 positions; give at most 16, or 0 for all"),
        ((*TOKENS, "--target-arg", "features.tokens.token=4"), r"no setting 'token' .did you mean 'tokens'"),
        ((*TOKENS, "--target-arg", "features.tokens.channels=[0]"), r"no setting 'channels'"),
        (("--targets", "features.pooled", "--target-arg", "features.pooled.bits=16"), r"bits are 16; choose 4 to 8"),
        (("--targets", "features.token"), r"--targets names 'features.token' .did you mean 'features.tokens'"),
        (("--targets", "features"), r"--targets names 'features'"),
    ],
)
def test_settings_that_a_transformer_cannot_serve_are_refused_and_nothing_is_written(
    words: tuple[str, ...], message: str, vit: list[object], tmp_path: Path, command: Any
) -> None:
    outcome = command(*vit, *words, "--out", tmp_path / "labels.zarr")
    assert outcome.code == 2
    assert re.search(message, outcome.error), outcome.error
    assert not (tmp_path / "labels.zarr").exists()


def test_tokens_of_a_cnn_are_refused_and_nothing_is_written(
    precompute: list[object], hard_store: Path, toy: Path, teacher_weights: Path, tmp_path: Path, command: Any
) -> None:
    source = ("--data", toy, "--teacher-weights", teacher_weights, "--workers", 0)
    for words in (precompute, ["add-targets", hard_store, *source]):
        outcome = command(*words, *TOKENS, "--out", tmp_path / "labels.zarr")
        assert outcome.code == 2
        assert "teacher test_resnet has no patch tokens to store; choose a vision transformer" in outcome.error
        assert not (tmp_path / "labels.zarr").exists()


def test_features_that_are_not_finite_are_refused_and_nothing_is_written(
    vit: list[object], vit_weights: Path, tmp_path: Path, command: Any
) -> None:
    from safetensors.torch import load_file, save_file

    state = load_file(vit_weights)
    state["blocks.0.mlp.fc2.bias"][3] = torch.nan
    save_file(state, tmp_path / "bad.safetensors")
    outcome = command(
        *vit, *TOKENS, *SETTINGS, "--teacher-weights", tmp_path / "bad.safetensors", "--out", tmp_path / "s"
    )
    assert outcome.code == 3
    assert "the teacher gave features that are not finite" in outcome.error
    assert not (tmp_path / "s").exists()
