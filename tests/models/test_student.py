"""Students: their heads, what is refused, and that timm loads what they export."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor

from cskd_pipeline.errors import DataError, MismatchError, UsageError
from cskd_pipeline.models.student import (
    Student,
    create_student,
    parameter_count,
    plain_state_dict,
    require_answers,
    resolve_name,
)

TINY: dict[str, Any] = {"embed_dim": 32, "depth": 2, "num_heads": 2, "img_size": 16, "patch_size": 4}
PLAIN = "vit_tiny_patch16_224"
POOLING = {"token": {}, "avg": {"global_pool": "avg", "class_token": False}}


def tiny(name: str = "deit_ti", **settings: Any) -> Student:
    args = {**TINY, **settings.pop("args", {})}
    return create_student(name, classes=5, args=args, **settings).eval()


def pixels(count: int = 3) -> Tensor:
    return torch.randn(count, 3, 16, 16, generator=torch.Generator().manual_seed(7))


@torch.no_grad()
def test_dense_logits_are_the_distillation_head_on_every_patch_token_averaged_over_tiles() -> None:
    student = tiny(grid=(2, 2))
    model: Any = student.model
    output = student(pixels())
    tokens = model.forward_features(pixels())
    assert output.dense_BCHW is not None and output.dense_BCHW.shape == (3, 5, 2, 2)
    logits = model.head_dist(tokens[:, 2:])
    for row in range(2):
        for column in range(2):
            inside = [4 * (2 * row + i) + 2 * column + j for i in range(2) for j in range(2)]
            expected = sum(logits[:, position] for position in inside) / 4
            torch.testing.assert_close(output.dense_BCHW[:, :, row, column], expected)


@torch.no_grad()
def test_heads_read_their_own_tokens_whatever_mode_timm_is_in() -> None:
    student = tiny()
    model: Any = student.model
    output = student(pixels())
    assert output.dist_BC is not None and output.dense_BCHW is None
    torch.testing.assert_close((output.cls_BC + output.dist_BC) / 2, model(pixels()))
    model.train()
    model.set_distilled_training(True)
    cls, dist = model(pixels())
    again = student(pixels())
    assert again.dist_BC is not None
    assert torch.equal(again.cls_BC, cls) and torch.equal(again.dist_BC, dist)


@torch.no_grad()
@pytest.mark.parametrize("name", ["deit_ti", PLAIN])
@pytest.mark.parametrize("pooling", POOLING)
def test_the_mean_of_dense_logits_does_not_depend_on_the_grid(name: str, pooling: str) -> None:
    if name == "deit_ti" and pooling == "avg":
        pooling = "token"
    means = []
    for grid in ((1, 1), (2, 2), (4, 4)):
        output = tiny(name, grid=grid, args=POOLING[pooling])(pixels())
        assert output.dense_BCHW is not None
        means.append(output.dense_BCHW.mean((2, 3)))
    torch.testing.assert_close(means[0], means[1])
    torch.testing.assert_close(means[0], means[2])


@torch.no_grad()
@pytest.mark.parametrize("pooling", POOLING)
def test_a_plain_vit_gets_a_second_head_only_when_distilled_into(pooling: str) -> None:
    plain = tiny(PLAIN, args=POOLING[pooling])
    assert plain(pixels()).dist_BC is None
    distilled = tiny(PLAIN, args=POOLING[pooling], distillation=True)
    output = distilled(pixels())
    assert output.dist_BC is not None and not torch.equal(output.dist_BC, output.cls_BC)
    assert torch.equal(output.cls_BC, distilled.model(pixels()))
    assert parameter_count(distilled) == parameter_count(plain) + 32 * 5 + 5


def test_every_parameter_gets_a_gradient_in_every_kind() -> None:
    for student in (
        tiny(grid=(2, 2)),
        tiny(PLAIN, grid=(2, 2)),
        tiny(PLAIN, grid=(2, 2), args=POOLING["avg"]),
        tiny(PLAIN),
    ):
        output = student.train()(pixels())
        heads = [head for head in (output.cls_BC, output.dist_BC, output.dense_BCHW) if head is not None]
        sum(head.square().sum() for head in heads).backward()
        assert [name for name, value in student.named_parameters() if value.grad is None] == []


def test_any_timm_classifier_is_a_student_without_distillation() -> None:
    student = create_student("resnet10t", classes=5).eval()
    output = student(torch.zeros(1, 3, 32, 32))
    assert output.cls_BC.shape == (1, 5) and output.dist_BC is None


def test_the_papers_names_are_aliases() -> None:
    assert resolve_name("deit_ti") == "deit_tiny_distilled_patch16_224"
    assert tiny().spec.model == "deit_tiny_distilled_patch16_224"
    for name in ("deit_s", "deit_b"):
        assert timm.is_model(resolve_name(name))


@pytest.mark.parametrize(
    ("name", "args", "message"),
    [
        ("deit_tiny_destilled_patch16_224", {}, "did you mean 'deit_tiny_distilled_patch16_224'"),
        ("deit_ti", {"embed_dims": 32}, "unexpected keyword argument 'embed_dims'"),
        ("deit_ti", {"depth": "two"}, "depth='two'"),
        ("deit_ti", {"num_heads": 7}, "num_heads=7"),
        ("deit_ti", {"num_classes": 9}, "num_classes is settled by other options"),
        ("deit_tiny_distilled_patch16_224.nobody", {}, "nobody"),
    ],
)
def test_what_timm_cannot_build_is_a_one_line_usage_error(name: str, args: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        create_student(name, classes=5, args=args)
    assert "\n" not in str(caught.value)


def test_a_grid_that_does_not_divide_is_refused_with_both_sizes() -> None:
    with pytest.raises(MismatchError, match="4 x 4 patch tokens do not pool to the teacher's 3 x 3"):
        tiny(grid=(3, 3))


def test_initial_weights_depend_on_the_seed_alone_and_leave_the_global_state_alone() -> None:
    before = torch.random.get_rng_state()
    first, again, other = tiny(), tiny(), tiny(seed=1)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert any(not torch.equal(a, b) for a, b in zip(first.parameters(), other.parameters(), strict=True))


def test_embeddings_and_tokens_are_exempt_from_decay_under_their_own_names() -> None:
    student = tiny()
    names = dict(student.named_parameters())
    exempt = student.no_weight_decay() & names.keys()
    assert exempt == {"model.cls_token", "model.dist_token", "model.pos_embed"}


@torch.no_grad()
@pytest.mark.parametrize(("name", "distillation"), [("deit_ti", True), (PLAIN, False), (PLAIN, True)])
def test_timm_loads_an_export_and_predicts_the_same(name: str, distillation: bool, tmp_path: Path) -> None:
    student = tiny(name, distillation=distillation, seed=3)
    file = tmp_path / "weights.safetensors"
    save_file(plain_state_dict(student), file)
    model = timm.create_model(resolve_name(name), num_classes=5, checkpoint_path=str(file), **TINY).eval()
    output = student(pixels())
    expected = output.cls_BC
    if name == "deit_ti" and output.dist_BC is not None:
        expected = (output.cls_BC + output.dist_BC) / 2
    assert torch.equal(model(pixels()), expected)


def test_weights_to_start_from_are_loaded_and_other_classifiers_left_fresh(tmp_path: Path) -> None:
    donor = create_student("deit_ti", classes=9, args=TINY, seed=3)
    file = tmp_path / "donor.pth"
    torch.save({"model": {f"module.{key}": value for key, value in plain_state_dict(donor).items()}}, file)
    student = tiny(weights=file)
    assert set(student.fresh) == {"head.weight", "head.bias", "head_dist.weight", "head_dist.bias"}
    assert torch.equal(student.model.pos_embed, donor.model.pos_embed)
    with pytest.raises(DataError, match=r"pos_embed is \(1, 18, 32\) where \(1, 18, 48\) is needed"):
        tiny(weights=file, args={"embed_dim": 48})


REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "channels": (PLAIN, {"in_chans": 1}, r"in_chans=1 gives no class logits for crops of 3 x 16 x 16 pixels"),
    "features": ("test_resnet", {"features_only": True}, "returns a list, not a tensor"),
    "no pooling": (PLAIN, {"global_pool": ""}, r"returns \(1, 17, 5\) where \(1, 5\) is needed"),
    "no pooling of maps": ("test_resnet", {"global_pool": ""}, "gives no class logits"),
    "positions": ("deit_ti", {"no_embed_class": True}, "no_embed_class=True gives no class logits"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_arguments_that_change_what_a_model_takes_or_returns_are_refused(case: str) -> None:
    name, args, said = REFUSED[case]
    tokens = TINY if name != "test_resnet" else {}
    with pytest.raises(UsageError, match=said):
        create_student(name, classes=5, size=16, args={**tokens, **args})


@pytest.mark.parametrize("name", ["test_vit", "test_resnet", "test_efficientnet", "test_convnext", "test_byobnet"])
def test_any_classifier_of_timm_is_a_student(name: str) -> None:
    args = {"img_size": 32} if name == "test_vit" else {}
    student = create_student(name, classes=5, size=32, args=args)
    assert student.eval()(torch.zeros(2, 3, 32, 32)).cls_BC.shape == (2, 5)


def test_patches_that_do_not_cover_the_crop_have_no_grid() -> None:
    args = {**TINY, "img_size": 18}
    create_student("deit_ti", classes=5, size=18, args=args)
    with pytest.raises(UsageError, match="patches of 4 x 4 pixels do not cover 18 x 18"):
        create_student("deit_ti", classes=5, size=18, args=args, grid=(2, 2))


def test_trying_a_student_changes_nothing_and_refuses_one_value_a_channel() -> None:
    student = create_student("test_resnet", classes=5, size=32)
    weights = {name: value.clone() for name, value in student.state_dict().items()}
    state = torch.get_rng_state()
    require_answers(student, size=32, batch=2, training=True)
    require_answers(student, size=64, batch=1, training=True)
    with pytest.raises(UsageError, match=r"cannot learn from one crop of 32 x 32 pixels at a time.*--batch-size"):
        require_answers(student, size=32, batch=1, training=True)
    assert student.training and torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, weights[name]) for name, value in student.state_dict().items())
