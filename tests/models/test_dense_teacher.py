"""The teacher's logits: dense ones by the head at every place, the same however crops are batched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file

from cskd_pipeline.errors import MismatchError, UsageError
from cskd_pipeline.models.teacher.load import load_teacher, resolve_teacher
from cskd_pipeline.models.teacher.teacher import Teacher

CPU = torch.device("cpu")


def pixels(crops: int, size: int = 32) -> torch.Tensor:
    return torch.randn(crops, 3, size, size, generator=torch.Generator().manual_seed(crops))


@pytest.fixture
def teacher(teacher_weights: Path) -> Teacher:
    return load_teacher(
        "test_resnet", classes=3, size=32, device=CPU, weights=teacher_weights, args={"output_stride": 8}, chunk=8
    )


def random_weights(name: str, folder: Path, **args: object) -> Path:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = timm.create_model(name, num_classes=5, **args)
        for value in model.state_dict().values():
            if value.dtype.is_floating_point and value.ndim == 1:
                value.uniform_(0.5, 1.5)
        for module in model.modules():
            if isinstance(module, torch.nn.Linear):
                module.weight.data.mul_(20)  # timm's start is so small that no head differs from another
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, folder / f"{name}.safetensors")
    return folder / f"{name}.safetensors"


def test_dense_logits_are_the_head_applied_to_every_position(teacher: Teacher) -> None:
    x = pixels(8)
    dense, global_ = teacher(x)
    assert teacher.grid == (4, 4) and dense.shape == (8, 16, 3)
    model = teacher._model
    with torch.no_grad():
        features = model.forward_features(x)
        for row, (y, place_x) in enumerate((y, x_) for y in range(4) for x_ in range(4)):
            expected = model.fc(features[:, :, y, place_x])
            assert torch.allclose(dense[:, row], expected, atol=1e-6)
        assert torch.allclose(global_, model(x), atol=1e-6)  # a linear head commutes with average pooling


@pytest.mark.parametrize(
    "name, linear",
    [("test_efficientnet", True), ("test_nfnet", True), ("test_convnext", False), ("test_mambaout", False)],
)
def test_mean_equals_the_head_for_linear_heads_only(name: str, linear: bool, tmp_path: Path) -> None:
    settings = {"classes": 5, "size": 96, "device": CPU, "weights": random_weights(name, tmp_path), "chunk": 4}
    by_mean = load_teacher(name, **settings)
    by_head = load_teacher(name, **settings, global_source="head")
    x = pixels(4, 96)
    gap, largest, _ = by_mean.gap(x)
    with torch.no_grad():
        own = by_head._model(x)
    assert by_mean.grid == (3, 3)
    assert torch.allclose(by_head(x)[1], own, atol=1e-5)
    assert torch.allclose(by_mean(x)[1], by_mean(x)[0].mean(1), atol=1e-6)
    assert (gap < 1e-4 * largest) == linear


def test_a_crop_has_the_same_logits_in_any_batch(teacher: Teacher) -> None:
    x = pixels(21)
    dense, global_ = teacher(x)
    order = torch.randperm(21, generator=torch.Generator().manual_seed(0))
    shuffled, shuffled_global = teacher(x[order])
    assert torch.equal(shuffled, dense[order]) and torch.equal(shuffled_global, global_[order])
    for crops in (1, 2, 5, 8):
        assert torch.equal(teacher(x[:crops])[0], dense[:crops])


@pytest.mark.parametrize("running", [{"channels_last": True}, {"precision": "bf16"}])
def test_ways_of_running_stay_close_and_give_fp32(teacher_weights: Path, teacher: Teacher, running: dict) -> None:
    other = load_teacher(
        "test_resnet",
        classes=3,
        size=32,
        device=CPU,
        weights=teacher_weights,
        args={"output_stride": 8},
        chunk=8,
        **running,
    )
    x = pixels(8)
    dense, global_ = other(x)
    assert dense.dtype == global_.dtype == torch.float32
    assert (dense - teacher(x)[0]).abs().max() < 0.05 * teacher(x)[0].abs().max()


def test_weights_load_in_every_form_and_have_one_digest(teacher_weights: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    state = load_file(teacher_weights)
    torch.save(state, tmp_path / "plain.pth")
    torch.save({"model": state, "epoch": 3}, tmp_path / "model.pth")
    torch.save({"state_dict": {f"module.{k}": v for k, v in state.items()}}, tmp_path / "state.pth")
    digests = {
        load_teacher("test_resnet", classes=3, size=32, device=CPU, weights=path).spec.weights
        for path in (teacher_weights, *(tmp_path / f"{name}.pth" for name in ("plain", "model", "state")))
    }
    assert len(digests) == 1
    state["fc.bias"] = state["fc.bias"] + 1
    torch.save(state, tmp_path / "other.pth")
    assert (
        load_teacher("test_resnet", classes=3, size=32, device=CPU, weights=tmp_path / "other.pth").spec.weights
        not in digests
    )


def test_names_resolve_to_the_papers_teacher() -> None:
    assert resolve_teacher("regnety_160") == "regnety_160.deit_in1k"
    assert resolve_teacher("resnet50.a1_in1k") == "resnet50.a1_in1k"
    with pytest.raises(UsageError, match="did you mean 'resnet50'"):
        resolve_teacher("resnet_50")
    with pytest.raises(UsageError, match=r"no weights 'resnet50\.a9_in1k'.*did you mean"):
        resolve_teacher("resnet50.a9_in1k")


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("test_vit", {}),
        ("vit_tiny_patch16_224", {"global_pool": "avg", "img_size": 64, "depth": 1}),
        ("deit3_small_patch16_224", {"img_size": 64, "depth": 1}),
        ("eva02_tiny_patch14_224", {"img_size": 56, "depth": 1}),
        ("beit_base_patch16_224", {"img_size": 64, "depth": 1}),
    ],
)
def test_a_vision_transformer_answers_at_every_patch(name: str, args: dict[str, object], tmp_path: Path) -> None:
    weights, size = random_weights(name, tmp_path, **args), int(str(args.get("img_size", 160)))
    teacher = load_teacher(name, classes=5, size=size, device=CPU, weights=weights, args=args, chunk=4)
    x, model = pixels(4, size), teacher._model
    dense, global_ = teacher(x)
    rows, columns = model.patch_embed.grid_size
    assert teacher.grid == (rows, columns) and teacher.spec.global_source == "head"
    torch.testing.assert_close(global_, model(x))
    tokens = model.forward_features(x)[:, model.num_prefix_tokens :]
    torch.testing.assert_close(dense, model.head(model.fc_norm(tokens)), atol=1e-5, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("vit_tiny_patch16_224", {"img_size": 64, "depth": 3}),
        ("vit_tiny_patch16_224", {"global_pool": "avg", "img_size": 64, "depth": 3}),
        ("vit_small_patch14_reg4_dinov2", {"img_size": 56, "depth": 3, "embed_dim": 96}),
        ("deit3_small_patch16_224", {"img_size": 64, "depth": 3, "embed_dim": 96}),
        ("eva02_tiny_patch14_224", {"img_size": 56, "depth": 3}),
        ("beit_base_patch16_224", {"img_size": 64, "depth": 3, "embed_dim": 96}),
    ],
)
def test_patch_tokens_are_the_output_of_blocks_and_the_logits_stay_as_they_are(
    name: str, args: dict[str, Any], tmp_path: Path
) -> None:
    weights = random_weights(name, tmp_path, **args)
    teacher = load_teacher(name, classes=5, size=args["img_size"], device=CPU, weights=weights, args=args, chunk=4)
    x, model, seen = pixels(6, args["img_size"]), teacher._model, {}
    layers = teacher.layers((0, 1, 2))
    assert layers == teacher.layers((0, 1, -1)) == (0, 1, -1)
    dense, global_, features = teacher.answer(x, pooled=True, layers=layers)
    plain_dense, plain_global, nothing = teacher.answer(x)
    assert torch.equal(dense, plain_dense) and torch.equal(global_, plain_global) and nothing == (None, None, None)
    for number in (0, 1):
        model.blocks[number].register_forward_hook(lambda _, __, out, number=number: seen.update({number: out}))
    model.get_classifier().register_forward_hook(lambda _, inputs, __: seen.update(pooled=inputs[0]))
    x4 = x[:4]
    last = model.forward_features(x4)
    model.forward_head(last)
    assert features.tokens_BLPD is not None and features.pooled_BD is not None
    assert features.tokens_BLPD.shape == (6, 3, teacher.positions, model.embed_dim)
    for layer, whole in enumerate((seen[0], seen[1], last)):
        torch.testing.assert_close(features.tokens_BLPD[:4, layer], whole[:, model.num_prefix_tokens :])
    torch.testing.assert_close(features.pooled_BD[:4], seen["pooled"])
    for some in ((0,), (1, -1), (-1,)):
        found = teacher.answer(x, layers=some)[2]
        assert found.pooled_BD is None and found.tokens_BLPD is not None
        assert torch.equal(found.tokens_BLPD, features.tokens_BLPD[:, [(0, 1, -1).index(one) for one in some]])


@pytest.mark.parametrize("layers", [(3,), (0, 7), (-2,)])
def test_blocks_that_a_teacher_lacks_are_refused(layers: tuple[int, ...], teacher: Teacher, tmp_path: Path) -> None:
    args: dict[str, Any] = {"img_size": 32, "patch_size": 8, "depth": 3, "embed_dim": 24, "num_heads": 2}
    weights = random_weights("vit_tiny_patch16_224", tmp_path, **args)
    vit = load_teacher("vit_tiny_patch16_224", classes=5, size=32, device=CPU, weights=weights, args=args)
    with pytest.raises(UsageError, match=rf"has no block {layers[-1]}; it has 3, from 0 to 2"):
        vit.layers(layers)
    with pytest.raises(UsageError, match="test_resnet has no patch tokens"):
        teacher.layers((0,))


def test_the_pooled_feature_of_a_cnn_is_what_its_classifier_takes(teacher: Teacher) -> None:
    x = pixels(21)
    dense, global_, features = teacher.answer(x, pooled=True)
    assert torch.equal(dense, teacher(x)[0]) and torch.equal(global_, teacher(x)[1])
    assert features.tokens_BLPD is None and features.pooled_BD is not None and features.pooled_BD.shape == (21, 96)
    with torch.no_grad():
        torch.testing.assert_close(teacher._model.fc(features.pooled_BD), teacher._model(x))
    assert torch.equal(teacher.answer(x[:5], pooled=True)[2].pooled_BD, features.pooled_BD[:5])


@torch.no_grad()
def test_a_model_without_positions_has_one(tmp_path: Path) -> None:
    args: dict[str, object] = {"img_size": 64, "depth": 1}
    weights = random_weights("deit_tiny_distilled_patch16_224", tmp_path, **args)
    teacher = load_teacher(
        "deit_tiny_distilled_patch16_224", classes=5, size=64, device=CPU, weights=weights, args=args, chunk=4
    )
    dense, global_ = teacher(pixels(4, 64))
    assert teacher.grid == (1, 1) and torch.equal(dense[:, 0], global_)
    torch.testing.assert_close(global_, teacher._model(pixels(4, 64)))


def test_weights_of_another_class_count_are_refused(teacher_weights: Path) -> None:
    with pytest.raises(MismatchError, match=r"has 3 outputs, the data has 7 classes; say with --teacher-classes"):
        load_teacher("test_resnet", classes=7, size=32, device=CPU, weights=teacher_weights)


def test_an_odd_chunk_is_refused(teacher_weights: Path) -> None:
    with pytest.raises(UsageError, match=r"even.*found 7"):
        load_teacher("test_resnet", classes=3, size=32, device=CPU, weights=teacher_weights, chunk=7)
