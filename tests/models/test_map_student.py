"""Students with a second head on the last feature map: any timm model that has one."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.models.resnet import ResNet
from timm_families import FAMILIES, family
from torch import Tensor

from cskd_pipeline.batch import MixedLabels, Targets
from cskd_pipeline.errors import CskdError, MismatchError, UsageError
from cskd_pipeline.models.student import Student, create_student, plain_state_dict
from cskd_pipeline.models.student.heads import MapStudent
from cskd_pipeline.objectives import create_objective
from cskd_pipeline.runs.open import student_for

QUICK = ("resnet", "convnext", "efficientnet", "mobilenetv3", "eva", "xcit", "maxxvit", "levit", "pit", "mambaout")
"""Maps of both memory orders, before and after a last convolution, of tokens, and heads of their own."""


def noise(size: int, count: int = 2) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(7))


def require_distils(module: str) -> None:
    """Class logits are timm's, dense ones come of the second head, all weights learn, and the export is timm's."""
    name, args, size = family(module)
    student = create_student(name, classes=5, grid=(1, 1), size=size, args=args)
    pixels, labels = noise(size), torch.tensor([0, 1])
    with torch.no_grad():
        output = student.eval()(pixels)
        torch.testing.assert_close(output.cls_BC, student.model(pixels))
        if isinstance(student, MapStudent):
            torch.testing.assert_close(output.dense_BCHW[:, :, 0, 0], output.dist_BC)
    output = student.train()(pixels)
    mixed = MixedLabels(labels, labels, torch.ones(2), smoothing=0.1)
    targets = Targets(0, hard_global_B=labels, hard_dense_BHW=labels[:, None, None])
    create_objective("cskd")(output, mixed, targets).sum().backward()
    assert [key for key, value in student.named_parameters() if value.grad is None] == []
    with torch.device("meta"):
        assert plain_state_dict(student).keys() == timm.create_model(name, num_classes=5, **args).state_dict().keys()


@pytest.mark.parametrize("module", QUICK)
def test_a_model_with_a_last_feature_map_can_be_distilled_into(module: str) -> None:
    require_distils(module)


@pytest.mark.slow
@pytest.mark.parametrize("module", sorted(FAMILIES.keys() - set(QUICK)))
def test_every_family_of_timm_can_be_distilled_into(module: str) -> None:
    require_distils(module)


def test_no_family_of_timm_is_left_out() -> None:
    its_own = {name for name in timm.list_modules() if importlib.util.find_spec(f"timm.models.{name}")}
    assert its_own <= FAMILIES.keys()


@torch.no_grad()
def test_dense_logits_are_the_head_on_every_position_averaged_over_tiles() -> None:
    student = create_student("test_resnet", classes=5, grid=(2, 2), size=128).eval()
    assert isinstance(student, MapStudent)
    output = student(noise(128))
    features: Any = student.model.forward_features(noise(128))
    logits = student.head_dist(features.permute(0, 2, 3, 1))
    assert logits.shape == (2, 4, 4, 5) and output.dense_BCHW is not None and output.dist_BC is not None
    for row in range(2):
        for column in range(2):
            tile = logits[:, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
            torch.testing.assert_close(output.dense_BCHW[:, :, row, column], tile.mean((1, 2)))
    torch.testing.assert_close(output.dist_BC, output.dense_BCHW.mean((2, 3)))


@torch.no_grad()
def test_the_map_is_what_the_classifier_pools() -> None:
    pixels = noise(64)
    for name, args in (("test_efficientnet", {}), ("test_mambaout", {}), ("test_convnext", {})):
        student = create_student(name, classes=5, distillation=True, size=64, args=args).eval()
        assert isinstance(student, MapStudent)
        features: Any = student.model.forward_features(pixels)
        channels_first = features.shape[1] == student.model.num_features
        pooled = features.mean((2, 3) if channels_first else (1, 2))
        torch.testing.assert_close(student(pixels).dist_BC, student.head_dist(pooled))


@torch.no_grad()
def test_tokens_that_are_normed_after_pooling_are_normed_at_every_position() -> None:
    student = create_student("test_vit_relpos", classes=5, grid=(2, 2), size=64, args={"img_size": 64}).eval()
    model: Any = student.model
    model.fc_norm, model.norm = torch.nn.LayerNorm(96), torch.nn.Identity()
    torch.nn.init.uniform_(model.fc_norm.weight)
    tokens = model.fc_norm(model.forward_features(noise(64)))
    torch.testing.assert_close(student(noise(64)).dist_BC, student.head_dist(tokens.mean(1)))


@torch.no_grad()
@pytest.mark.parametrize("name", ["test_resnet", "test_coatnet", "vit_tiny_patch16_dinov3_qkvb", "levit_128s"])
def test_timm_loads_an_export_and_predicts_the_class_logits(name: str, tmp_path: Path) -> None:
    args = {} if name == "test_resnet" else {"img_size": 64}
    student = create_student(name, classes=5, grid=(1, 1), size=64, args=args, seed=3).eval()
    save_file(plain_state_dict(student), tmp_path / "weights.safetensors")
    model = timm.create_model(name, num_classes=5, checkpoint_path=str(tmp_path / "weights.safetensors"), **args)
    assert torch.equal(model.eval()(noise(64)), student(noise(64)).cls_BC)


def built_for(size: int, name: str, **args: Any) -> Student:
    return student_for(name, create_objective("cskd"), size=size, classes=5, grid=(1, 1), args=args)


@pytest.mark.parametrize("name", ["test_coatnet", "vit_tiny_patch16_dinov3_qkvb", "swin_s3_tiny_224"])
def test_a_model_of_a_fixed_size_is_built_for_the_crops(name: str) -> None:
    student = built_for(64, name)
    assert (student.spec.args, student.size) == ({"img_size": 64}, 64)
    # And again from its spec alone, as evaluation builds it.
    assert create_student(name, classes=5, args=student.spec.args).size == 64


def test_a_model_of_any_size_is_left_as_it_is() -> None:
    assert built_for(64, "test_resnet").spec.args == {}


def test_a_classifier_of_any_name_starts_afresh_for_other_classes(tmp_path: Path) -> None:
    donor = create_student("legacy_seresnet18", classes=9, size=64, seed=3)
    save_file(plain_state_dict(donor), tmp_path / "donor.safetensors")
    student = create_student(
        "legacy_seresnet18", classes=5, distillation=True, size=64, weights=tmp_path / "donor.safetensors"
    )
    assert set(student.fresh) == {"last_linear.weight", "last_linear.bias"}
    assert torch.equal(student.model.layer0.conv1.weight, donor.model.layer0.conv1.weight)


REFUSED: dict[str, tuple[type[CskdError], str, dict[str, Any], str]] = {
    "a map that does not pool": (
        MismatchError,
        "test_resnet",
        {},
        "2 x 2 positions do not pool to the teacher's 4 x 4",
    ),
    "channels": (UsageError, "test_resnet", {"in_chans": 1}, "in_chans=1 gives no class logits"),
    "features": (UsageError, "test_resnet", {"features_only": True}, "returns a list, not a tensor"),
    "no pooling": (UsageError, "test_convnext", {"global_pool": ""}, "gives no class logits"),
    "dropped patches": (
        UsageError,
        "vit_tiny_patch16_dinov3_qkvb",
        {"patch_drop_rate": 0.5},
        "drops patches, so its dense logits have no grid",
    ),
    "images that are not square": (
        MismatchError,
        "swin_s3_tiny_224",
        {"img_size": [96, 128]},
        "the student takes 96 x 128",
    ),
    "not square, said by the model alone": (
        UsageError,
        "test_coatnet",
        {"img_size": [96, 128]},
        "gives no class logits",
    ),
    "a fixed size of its own": (MismatchError, "test_coatnet", {"img_size": 96}, "the student takes 96 x 96"),
    "an encoder without classes": (UsageError, "qwen3_vit_88m_enc", {"depth": 1}, "gives no class logits"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_distilled_into_is_refused_in_one_line(case: str) -> None:
    error, name, args, said = REFUSED[case]
    with pytest.raises(error, match=said) as caught:
        student_for(name, create_objective("cskd"), size=64, classes=5, grid=(4, 4), args=args)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("fault", ["missing", "other features"])
def test_a_model_without_a_feature_map_is_refused(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def other(self: ResNet, pixels: Tensor, **_: Any) -> tuple[Tensor, list[Tensor]]:
        features = self.forward_features(pixels)
        return features.flip(1), [features]

    if fault == "missing":
        monkeypatch.delattr(ResNet, "forward_intermediates")
    else:
        monkeypatch.setattr(ResNet, "forward_intermediates", other)
    with pytest.raises(UsageError, match="gives no last feature map to distil into") as caught:
        create_student("test_resnet", classes=5, distillation=True, size=64)
    assert "\n" not in str(caught.value)
