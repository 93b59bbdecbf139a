"""Rows of a teacher's classifier for the classes of the data."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from cskd_pipeline.errors import DataError, MismatchError, UsageError
from cskd_pipeline.models.teacher.classes import output_rows
from cskd_pipeline.models.teacher.load import load_teacher

OPTION = "--teacher-classes"
CPU = torch.device("cpu")


def rows(which: str | Path, *classes: str) -> tuple[int, ...]:
    return output_rows(str(which), [tuple(forms.split("|")) for forms in classes], option=OPTION)[0]


@pytest.mark.parametrize(
    ("classes", "expected"),
    [
        (["tench", "English_springer", "chain saw"], (0, 217, 491)),
        (["n02102040_English_springer", "n01440764"], (217, 0)),
        (["crane|n02012849", "CRANE|n03126707"], (134, 517)),
        (["crane (n03126707)"], (517,)),
        (["tench, Tinca tinca"], (0,)),
    ],
)
def test_imagenet_is_known_by_id_and_by_name(classes: list[str], expected: tuple[int, ...]) -> None:
    assert rows("imagenet-1k", *classes) == expected


def test_the_larger_imagenets_are_known() -> None:
    assert output_rows("imagenet-21k", [("x", "n01440764")], option=OPTION)[1] == 21843
    assert output_rows("imagenet-12k", [("x", "n01440764")], option=OPTION)[1] == 11821


def test_missing_ambiguous_and_shared_classes_are_listed() -> None:
    with pytest.raises(MismatchError, match="no class gizmo") as caught:
        rows("imagenet-1k", "tench", "crane", "gizmo", "cardigan")
    said = str(caught.value)
    assert "crane (outputs 134 n02012849 and 517 n03126707), cardigan (" in said and "tench" not in said
    with pytest.raises(MismatchError, match="one output for tench and n01440764; name"):
        rows("imagenet-1k", "tench", "n01440764")
    with pytest.raises(MismatchError, match=r"c0, c1, c2, c3, c4, c5, c6, c7 and 2 more"):
        rows("imagenet-1k", *(f"c{i}" for i in range(10)))


def test_files_name_outputs_by_line_or_number(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("cat\tn02121808\ndog\nbird, fowl\n")
    assert rows(tmp_path / "names.txt", "dog", "n02121808", "Fowl") == (1, 0, 2)
    (tmp_path / "list.json").write_text(json.dumps(["cat", "dog"]))
    assert rows(tmp_path / "list.json", "dog") == (1,)
    (tmp_path / "keras.json").write_text(json.dumps({"1": ["n02", "dog"], "0": ["n01", "cat"]}))
    assert rows(tmp_path / "keras.json", "dog", "cat") == (1, 0)
    (tmp_path / "config.json").write_text(json.dumps({"id2label": {"0": "cat", "1": "dog"}}))
    assert rows(tmp_path / "config.json", "dog") == (1,)


def test_numbers_as_names_in_natural_order() -> None:
    assert rows("natural", "0", "1", "10", "11", "2") == (0, 1, 3, 4, 2)


def test_an_order_asks_for_no_names_that_differ() -> None:
    assert rows("natural", "crane|n02012849", "Cardigan", "cardigan", "crane|n03126707") == (2, 0, 1, 3)


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.txt", "\n"), ("a.txt", "cat\n\ndog\n"), ("a.json", "{"), ("a.json", '{"3": "cat"}'), ("a.json", "7")],
)
def test_files_that_name_nothing_are_refused(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match="names no classes"):
        rows(tmp_path / name, "cat")


def test_an_unknown_list_is_refused() -> None:
    with pytest.raises(UsageError, match="did you mean 'imagenet-1k'"):
        rows("imagenet1k", "tench")


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "mobilenetv2_050"])
def test_the_teacher_answers_with_these_rows(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    args = {"img_size": 32} if name == "test_vit" else {}
    whole = timm.create_model(name, num_classes=12, **args).eval()
    save_file(whole.state_dict(), tmp_path / "w.safetensors")
    common = {"size": 32, "device": CPU, "weights": tmp_path / "w.safetensors", "args": args, "chunk": 2}
    chosen = (7, 0, 11)
    pixels = torch.rand(2, 3, 32, 32)
    full, part = load_teacher(name, classes=12, **common), load_teacher(name, classes=3, rows=chosen, **common)
    for of_all, of_some in zip(full(pixels), part(pixels), strict=True):
        torch.testing.assert_close(of_some, of_all[..., list(chosen)])
    assert part.spec.rows == chosen and full.spec.rows is None and "rows" not in full.spec.to_json()
    with pytest.raises(MismatchError, match=r"has 12 outputs, --teacher-classes names 13"):
        load_teacher(name, classes=3, rows=chosen, outputs=13, **common)
    with pytest.raises(MismatchError, match=r"has 12 outputs"):
        load_teacher(name, classes=3, rows=(0, 1, 12), **common)


def test_all_classes_in_their_order_are_no_choice(tmp_path: Path) -> None:
    save_file(timm.create_model("test_resnet", num_classes=3).state_dict(), tmp_path / "w.safetensors")
    same = load_teacher(
        "test_resnet", classes=3, rows=(0, 1, 2), outputs=3, size=32, device=CPU, weights=tmp_path / "w.safetensors"
    )
    assert same.spec.rows is None
