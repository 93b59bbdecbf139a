"""CivT: its tokens and heads, the published sizes, and weights that timm loads without the training code."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import cross_entropy

from cskd_pipeline.batch import MixedLabels
from cskd_pipeline.errors import MismatchError, UsageError
from cskd_pipeline.evaluation import combined_heads
from cskd_pipeline.models.student import Student, can_be_distilled, create_student, parameter_count, plain_state_dict
from cskd_pipeline.objectives import create_objective

TINY: dict[str, Any] = {"embed_dim": 32, "depth": 2, "num_heads": 2, "img_size": 32, "patch_size": 8}


def tiny(**settings: Any) -> Student:
    return create_student("civt_ti", classes=5, args={**TINY, **settings.pop("args", {})}, **settings)


def pixels(count: int = 3) -> Tensor:
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(7))


@pytest.mark.parametrize(("name", "size"), [("civt_ti", 7_632_906), ("civt_s", 25_776_138), ("civt_b", 93_913_098)])
def test_sizes_are_the_published_ones(name: str, size: int) -> None:
    with torch.device("meta"):
        assert parameter_count(timm.create_model(name)) == size


@torch.no_grad()
def test_tokens_are_class_the_means_of_both_stems_and_their_sum_at_every_position() -> None:
    model: Any = tiny().eval().model
    embed = model.patch_embed
    conv, inv = (stem(pixels()).flatten(2).transpose(1, 2) for stem in (embed.conv, embed.inv))
    assert conv.shape == (3, 16, 32) and model.pos_embed.shape == (1, 19, 32)
    cls = model.cls_token.expand(3, -1, -1)
    tokens = torch.cat([cls, conv.mean(1, keepdim=True), inv.mean(1, keepdim=True), conv + inv], dim=1)
    expected = model.norm(model.blocks(tokens + model.pos_embed))
    torch.testing.assert_close(model.forward_features(pixels()), expected)


@torch.no_grad()
def test_each_head_reads_its_token_and_the_model_gives_their_mean() -> None:
    student = tiny().eval()
    model: Any = student.model
    output, tokens = student(pixels()), model.forward_features(pixels())
    heads = model.get_classifier()
    for logits, head, place in zip((output.cls_BC, output.conv_BC, output.inv_BC), heads, range(3), strict=True):
        torch.testing.assert_close(logits, head(tokens[:, place]))
    assert output.dist_BC is None and output.dense_BCHW is None
    scored = combined_heads(output)
    assert list(scored) == ["cls", "conv", "inv", "civt_head"]
    assert torch.equal(scored["conv"], output.conv_BC) and torch.equal(scored["inv"], output.inv_BC)
    assert torch.equal(scored["civt_head"], model(pixels()))


@torch.no_grad()
def test_what_timms_models_offer_is_there() -> None:
    model: Any = timm.create_model("civt_ti", num_classes=5, drop_path_rate=0.2, **TINY).eval()
    _, maps = model.forward_intermediates(pixels(), indices=[-1], norm=True, output_fmt="NCHW")
    tokens = model.forward_features(pixels())
    torch.testing.assert_close(maps[0].flatten(2).transpose(1, 2), tokens[:, 3:])
    assert model.forward_head(tokens, pre_logits=True).shape == (3, model.num_features)
    model.reset_classifier(7)
    assert model(pixels()).shape == (3, 7) and model.default_cfg["input_size"] == (3, 224, 224)
    assert model.blocks[-1].drop_path1.drop_prob == pytest.approx(0.2)
    assert "pos_embed" in model.no_weight_decay()
    features = timm.create_model("civt_ti", features_only=True, **{**TINY, "depth": 3})
    assert [tuple(map_.shape) for map_ in features(pixels())] == [(3, 32, 4, 4)] * 3


def test_supervised_trains_every_parameter_with_the_mean_of_three_losses() -> None:
    student = tiny().train()
    output = student(pixels())
    first_B = torch.tensor([0, 1, 4])
    labels = MixedLabels(first_B, first_B, torch.ones(3), smoothing=0.0)
    loss_B = create_objective("supervised")(output, labels, None)
    heads = (output.cls_BC, output.conv_BC, output.inv_BC)
    expected = sum(cross_entropy(logits, first_B, reduction="none") for logits in heads) / 3
    torch.testing.assert_close(loss_B, expected)
    loss_B.sum().backward()
    assert [name for name, value in student.named_parameters() if value.grad is None or not value.grad.any()] == []


LOADING = """
import sys
import torch
import cskd_pipeline.models.civt, timm
tiny = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2}
model = timm.create_model("civt_ti", num_classes=5, checkpoint_path=sys.argv[1], **tiny).eval()
torch.save(model(torch.load(sys.argv[2])), sys.argv[2])
ours = {name for name in sys.modules if name.startswith("cskd_pipeline")}
assert ours <= {"cskd_pipeline", "cskd_pipeline.errors", "cskd_pipeline.models", "cskd_pipeline.models.rednet",
    "cskd_pipeline.models.civt"}, ours
"""


@torch.no_grad()
@pytest.mark.slow
def test_timm_loads_an_export_with_the_model_alone(tmp_path: Path) -> None:
    student = tiny(seed=3).eval()
    save_file(plain_state_dict(student), tmp_path / "weights.safetensors")
    torch.save(pixels(), tmp_path / "pixels.pt")
    arguments = [str(tmp_path / "weights.safetensors"), str(tmp_path / "pixels.pt")]
    subprocess.run([sys.executable, "-W", "error", "-c", LOADING, *arguments], check=True)
    torch.testing.assert_close(torch.load(tmp_path / "pixels.pt"), combined_heads(student(pixels()))["civt_head"])


def test_weights_of_other_classes_leave_three_heads_fresh(tmp_path: Path) -> None:
    donor = create_student("civt_ti", classes=9, args=TINY)
    save_file(plain_state_dict(donor), tmp_path / "donor.safetensors")
    fresh = tiny(weights=tmp_path / "donor.safetensors").fresh
    assert set(fresh) == {f"{head}.{part}" for head in ("head", "head_conv", "head_inv") for part in ("weight", "bias")}


def test_objectives_for_heads_that_it_lacks_are_refused() -> None:
    assert not can_be_distilled(tiny())
    for heads in ({"distillation": True}, {"grid": (2, 2)}):
        with pytest.raises(UsageError, match="none for this objective's targets; choose another --objective"):
            tiny(**heads)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"in_chans": 1}, "in_chans=1 gives no class logits for crops of 3 x 32 x 32"),
        ({"patch_size": 12}, "32 x 32 pixels are no whole patches of 12; choose other images or patches"),
        ({"patch_size": 7}, "patch_size must be even, found 7"),
        ({"class_token": False}, "unexpected keyword argument 'class_token'"),
        ({"global_pool": "avg"}, "unexpected keyword argument 'global_pool'"),
        ({"num_heads": 7}, "num_heads=7"),
        ({"num_classes": 0}, "num_classes is settled by other options"),
    ],
)
def test_what_is_no_civt_is_a_one_line_usage_error(args: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        tiny(args=args)
    assert "\n" not in str(caught.value)


def test_crops_of_another_size_are_refused_with_both() -> None:
    with pytest.raises(MismatchError, match=r"crops are 40 x 40 pixels, the student takes 32 x 32.*img_size=40"):
        tiny(size=40)
