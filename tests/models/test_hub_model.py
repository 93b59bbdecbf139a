"""Models as timm's `save_for_hf` stores them: read from a folder, and refused where they are something else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from hub_server import HubServer
from timm.models import save_for_hf

from cskd_pipeline.errors import DataError, MismatchError, UsageError
from cskd_pipeline.models.hub_model import open_hub_model, weights_of
from cskd_pipeline.models.student import create_student
from cskd_pipeline.models.teacher.load import load_teacher

RUNNING: dict[str, Any] = {"classes": 3, "size": 32, "device": torch.device("cpu"), "chunk": 2}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A ResNet with an argument of its own, and another normalisation than timm's."""
    torch.manual_seed(0)
    model: Any = timm.create_model("test_resnet", num_classes=3, output_stride=8)
    model.pretrained_cfg.update(mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    save_for_hf(model, tmp_path / "mine", model_args={"output_stride": 8}, safe_serialization=False)
    return tmp_path / "mine"


def test_a_folder_says_architecture_arguments_and_normalisation(folder: Path) -> None:
    teacher = load_teacher(f"local-dir:{folder}", **RUNNING)
    spec = teacher.spec
    assert (spec.model, spec.args["output_stride"], teacher.grid) == ("test_resnet", 8, (4, 4))
    assert (spec.mean, spec.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert str(folder) not in json.dumps(spec.to_json())
    again = load_teacher("test_resnet", weights=folder, args={"output_stride": 8}, **RUNNING)
    assert again.spec.weights == spec.weights


def test_other_arguments_and_normalisation_may_be_given(folder: Path) -> None:
    half = ((0.5,) * 3, (0.5,) * 3)
    teacher = load_teacher(f"local-dir:{folder}", args={"output_stride": 16}, normalised=half, **RUNNING)
    assert teacher.grid == (2, 2) and teacher.spec.mean == half[0]


def test_configurations_of_older_timm_are_read(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    flat = {"architecture": config["architecture"], **config["pretrained_cfg"], "num_classes": 3}
    (folder / "config.json").write_text(json.dumps(flat))
    found = open_hub_model(f"local-dir:{folder}")
    assert (found.architecture, found.classes, found.config["mean"]) == ("test_resnet", 3, [0.1, 0.2, 0.3])


def test_a_folder_starts_a_student(tmp_path: Path) -> None:
    args = {"img_size": 32, "embed_dim": 24, "depth": 1, "num_heads": 2}
    start = timm.create_model("deit_tiny_patch16_224", num_classes=5, **args)
    save_for_hf(start, tmp_path / "mine", model_args=args)
    student: Any = create_student("deit_tiny_patch16_224", classes=3, args=args, weights=tmp_path / "mine")
    assert student.fresh == ("head.weight", "head.bias")
    assert torch.equal(student.model.pos_embed, start.pos_embed)
    with pytest.raises(UsageError, match="named by its architecture, found 'local-dir:"):
        create_student(f"local-dir:{tmp_path / 'mine'}", classes=3)


def test_a_folder_without_the_usual_name_must_have_one_file_of_weights(folder: Path) -> None:
    assert weights_of(folder) == folder / "pytorch_model.bin"
    (folder / "pytorch_model.bin").rename(folder / "epoch-9.pth")
    assert weights_of(folder) == folder / "epoch-9.pth"
    (folder / "other.safetensors").touch()
    with pytest.raises(DataError, match=r"is a folder; give the file .*several: epoch-9\.pth, other\.safetensors"):
        weights_of(folder)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"model_type": "vit", "hidden_size": 3}', r"of 'vit', a model of another library \(it has no 'architecture'"),
        ('{"architecture": ', "is damaged"),
        ("[]", "is damaged"),
        ('{"architecture": "test_resnet"}', "is damaged"),
        ("{}", "is not timm's"),
    ],
)
def test_other_configurations_are_named_as_that(content: str, said: str, folder: Path) -> None:
    (folder / "config.json").write_text(content)
    with pytest.raises(DataError, match=said):
        open_hub_model(f"local-dir:{folder}")


def test_what_is_missing_or_does_not_belong_is_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no folder"):
        load_teacher(f"local-dir:{tmp_path / 'absent'}", **RUNNING)
    with pytest.raises(MismatchError, match="predicts 3 classes, the data has 4"):
        load_teacher(f"local-dir:{folder}", **{**RUNNING, "classes": 4})
    (folder / "config.json").unlink()
    with pytest.raises(DataError, match=r"has no config\.json; give a folder that timm's save_for_hf made"):
        load_teacher(f"local-dir:{folder}", **RUNNING)


def test_a_model_of_the_hub_is_downloaded_and_labels(hub: HubServer, folder: Path) -> None:
    commit = hub.commit("models", "me/net", {file.name: file.read_bytes() for file in folder.iterdir()})
    teacher = load_teacher("hf-hub:me/net", **RUNNING)
    assert teacher.spec == load_teacher(f"local-dir:{folder}", **RUNNING).spec
    assert load_teacher(f"hf-hub:me/net@{commit}", **RUNNING).spec == teacher.spec
    again = load_teacher("test_resnet", weights="hf-hub:me/net", args={"output_stride": 8}, **RUNNING)
    assert again.spec.weights == teacher.spec.weights


@pytest.mark.parametrize(
    ("name", "kind", "said"),
    [
        ("hf-hub:me/absent", DataError, r"hf-hub:me/absent: its config\.json is not within reach"),
        ("hf-hub:me/net@v2", DataError, r"hf-hub:me/net@v2: its config\.json is not within reach"),
        ("hf-hub:me/n..t", UsageError, "must be hf-hub:USER/NAME"),
        ("hf-hub:me/bare", DataError, r"its pytorch_model\.bin is not within reach"),
    ],
)
def test_what_the_hub_does_not_have_is_named(
    name: str, kind: type[Exception], said: str, hub: HubServer, folder: Path
) -> None:
    hub.commit("models", "me/net", {"config.json": (folder / "config.json").read_bytes()})
    hub.commit("models", "me/bare", {"config.json": (folder / "config.json").read_bytes()})
    with pytest.raises(kind, match=said):
        load_teacher(name, **RUNNING)
