"""RedNet: the operator by its definition, the published sizes, and what timm's models can do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor

from cskd_pipeline.errors import DataError, UsageError
from cskd_pipeline.models.rednet import Involution, RedNet
from cskd_pipeline.models.student import create_student, parameter_count
from cskd_pipeline.models.teacher.load import load_teacher
from cskd_pipeline.models.teacher.teacher import Teacher

CPU = torch.device("cpu")
SIZES = {
    "rednet26": 9_233_166,
    "rednet38": 12_386_986,
    "rednet50": 15_540_806,
    "rednet101": 25_652_950,
    "rednet152": 33_984_582,
}


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_definition(layer: Involution, x: Tensor) -> Tensor:
    k, stride, dilation = layer.kernel, layer.stride, layer.dilation
    kernels = layer.conv2(layer.conv1(layer.pool(x)))
    batch, channels, high, wide = x.shape
    out = torch.zeros(batch, channels, *kernels.shape[2:], dtype=x.dtype)
    for channel in range(channels):
        for row in range(out.shape[2]):
            for column in range(out.shape[3]):
                for place in range(k * k):
                    y = row * stride + dilation * (place // k - k // 2)
                    z = column * stride + dilation * (place % k - k // 2)
                    if 0 <= y < high and 0 <= z < wide:
                        weight = kernels[:, channel // 16 * k * k + place, row, column]
                        out[:, channel, row, column] += weight * x[:, channel, y, z]
    return out


@pytest.mark.parametrize(
    ("kernel", "stride", "dilation", "size"),
    [(3, 1, 1, (4, 5)), (7, 1, 1, (3, 4)), (7, 2, 1, (6, 7)), (3, 1, 2, (5, 5))],
)
def test_involution_is_its_definition_and_so_are_its_gradients(
    kernel: int, stride: int, dilation: int, size: tuple[int, int]
) -> None:
    layer = Involution(32, kernel, stride=stride, dilation=dilation).double()
    x = normal(2, 32, *size).requires_grad_()
    out = layer(x)
    expected = by_definition(layer, x)
    assert out.shape == (2, 32, -(-size[0] // stride), -(-size[1] // stride))
    torch.testing.assert_close(out, expected, rtol=1e-12, atol=1e-12)
    seen = normal(*out.shape, seed=1)
    inputs = [x, *layer.parameters()]
    for mine, theirs in zip(
        torch.autograd.grad(out, inputs, seen), torch.autograd.grad(expected, inputs, seen), strict=True
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-10)


def test_involution_gives_the_dtype_that_it_gets_and_sums_in_fp32() -> None:
    layer = Involution(16, 3)
    x = normal(2, 16, 5, 5).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert layer(x.bfloat16()).dtype == torch.bfloat16 and layer(x).dtype == torch.float32
    with pytest.raises(AssertionError, match="multiple of 16 channels, not 24"):
        Involution(24, 3)


@pytest.mark.parametrize("name", SIZES)
def test_sizes_are_the_published_ones(name: str) -> None:
    with torch.device("meta"):
        assert parameter_count(timm.create_model(name)) == SIZES[name]


@pytest.fixture(scope="module")
def model() -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model: Any = timm.create_model("rednet26", num_classes=5, drop_path_rate=0.1)
        model(torch.randn(8, 3, 64, 64))  # running statistics other than 0 and 1
    return model.eval()


@torch.no_grad()
def test_what_timms_models_offer_is_there(model: Any) -> None:
    x = normal(2, 3, 64, 64).float()
    features = model.forward_features(x)
    assert features.shape == (2, model.num_features, 2, 2) and model.num_features == 2048
    assert model.forward_head(features, pre_logits=True).shape == (2, 2048)
    assert torch.equal(model.forward_head(features), model(x)) and model(x).shape == (2, 5)
    last, every = model.forward_intermediates(x, output_fmt="NCHW")
    assert torch.equal(last, every[-1]) and [map_.shape[1] for map_ in every] == [64, 256, 512, 1024, 2048]
    other = timm.create_model("rednet26", num_classes=7)
    other.reset_classifier(3)
    assert other.get_classifier().out_features == 3 and other.default_cfg["input_size"] == (3, 224, 224)
    assert [type(other.layer4[0].conv2), other.layer4[0].conv2.stride, other.conv1[3].kernel] == [Involution, 2, 3]
    assert timm.create_model("rednet26", features_only=True).feature_info.reduction() == [2, 4, 8, 16, 32]
    assert timm.create_model("rednet26", output_stride=16)(x).shape == (2, 1000)


def test_every_block_begins_as_the_identity_beside_its_shortcut() -> None:
    fresh = timm.create_model("rednet26", num_classes=5)
    blocks = [block for name, block in fresh.named_modules() if type(block).__name__ == "InvolutionBottleneck"]
    assert len(blocks) == 8 and all(not block.bn3.weight.any() for block in blocks)


def test_stochastic_depth_reaches_the_blocks(model: Any) -> None:
    assert model.layer4[0].drop_path.drop_prob == pytest.approx(0.1)


OFFICIAL = [
    ("conv1.0.", "stem.0.conv."),
    ("conv1.1.", "stem.0.bn."),
    ("conv1.3.", "stem.1."),
    ("conv1.4.", "stem.2."),
    ("conv1.6.", "stem.4.conv."),
    ("bn1.", "stem.4.bn."),
]


def official(model: RedNet, *, prefix: str = "backbone.") -> dict[str, Tensor]:
    """The weights under the names of the official files."""
    renamed = {}
    for name, value in model.state_dict().items():
        for mine, theirs in OFFICIAL:
            if name.startswith(mine):
                name = theirs + name.removeprefix(mine)
        renamed[f"head.{name}" if name.startswith("fc.") else prefix + name] = value
    return renamed


def test_names_of_official_files_are_those_of_mmcls(model: Any) -> None:
    names = official(model).keys()
    assert {
        "backbone.stem.1.conv1.bn.running_mean",
        "backbone.stem.1.conv2.conv.bias",
        "backbone.layer1.0.conv2.conv1.conv.weight",
        "backbone.layer1.0.downsample.1.bias",
        "backbone.layer4.0.bn3.num_batches_tracked",
        "head.fc.bias",
    } <= names


@torch.no_grad()
@pytest.mark.parametrize("prefix", ["backbone.", ""])
def test_official_files_are_read_for_students_and_teachers(model: Any, prefix: str, tmp_path: Path) -> None:
    torch.save({"meta": {"epoch": 100}, "state_dict": official(model, prefix=prefix)}, tmp_path / "rednet26.pth")
    x = normal(2, 3, 64, 64).float()
    student = create_student("rednet26", classes=5, size=64, weights=tmp_path / "rednet26.pth").eval()
    assert student.fresh == () and torch.equal(student(x).cls_BC, model(x))
    other = create_student("rednet26", classes=4, size=64, weights=tmp_path / "rednet26.pth")
    assert other.fresh == ("fc.weight", "fc.bias")
    teacher = load_teacher("rednet26", classes=5, size=64, device=CPU, weights=tmp_path / "rednet26.pth", chunk=2)
    assert torch.allclose(teacher(x)[1], model(x), atol=1e-5)
    theirs = {"pretrained": True, "pretrained_cfg_overlay": {"file": str(tmp_path / "rednet26.pth"), "num_classes": 5}}
    assert torch.equal(timm.create_model("rednet26", num_classes=5, **theirs).eval()(x), model(x))


@torch.no_grad()
def test_a_teachers_dense_logits_are_the_classifier_at_every_position(model: Any, tmp_path: Path) -> None:
    torch.save(model.state_dict(), tmp_path / "own.pth")
    teacher: Teacher = load_teacher(
        "rednet26", classes=5, size=64, device=CPU, weights=tmp_path / "own.pth", args={"output_stride": 16}, chunk=4
    )
    x = normal(6, 3, 64, 64).float()
    dense, mean = teacher(x)
    assert teacher.grid == (4, 4) and dense.shape == (6, 16, 5)
    features = teacher._model.forward_features(x)
    for position in range(16):
        expected = model.fc(features[:, :, position // 4, position % 4])
        torch.testing.assert_close(dense[:, position], expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(mean, teacher._model(x), atol=1e-5, rtol=1e-5)
    assert torch.equal(teacher(x[:3])[0], dense[:3])


def test_a_teacher_without_a_file_of_weights_is_a_one_line_error() -> None:
    with pytest.raises(DataError, match=r"no pretrained weights of rednet101 .*--teacher-weights") as caught:
        load_teacher("rednet101", classes=1000, size=64, device=CPU)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"in_chans": 1}, "in_chans=1 gives no class logits"),
        ({"global_pool": ""}, "gives no class logits"),
        ({"base_width": 24}, "multiple of 16 channels, not 24"),
        ({"num_classes": 0}, "num_classes is settled by other options"),
    ],
)
def test_arguments_that_leave_no_classifier_of_images_are_one_line_errors(args: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        create_student("rednet26", classes=5, size=32, args=args)
    assert "\n" not in str(caught.value)
