"""Data whose classes are not those that a model or labels were made with is refused; other names for them are not."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from toys import STUDENT_ARGS, TEACHER, TEACHER_ARGS, toy_image, write_toy

import cskd_pipeline as cskd
from cskd_pipeline.data import SampleIndex, open_split
from cskd_pipeline.errors import MismatchError
from cskd_pipeline.models.student import create_student
from cskd_pipeline.runs.data import require_same_classes
from cskd_pipeline.runs.trained_model import class_names, require_size

SMALL: dict[str, Any] = {"epochs": 1, "warmup_epochs": 0, "batch_size": 16, "workers": 0, "device": "cpu"}


@pytest.fixture
def tars(toy: Path, tmp_path: Path) -> Path:
    """A copy of the toy data, whose class list may be changed."""
    return Path(shutil.copytree(toy, tmp_path / "tars"))


def listed(folder: Path, text: str | None) -> SampleIndex:
    (folder / "classes.txt").unlink()
    if text is not None:
        (folder / "classes.txt").write_text(text)
    return open_split(str(folder), "test")


@pytest.mark.parametrize(
    ("trained", "text"),
    [
        (("disc", "bar", "plain"), "disc\nbar\nplain\n"),
        (("n0", "n1", "n2"), "disc\tn0\nbar\tn1\nplain\tn2\n"),
        (("disc", "n1", "plain"), "disc\tn0\nbar\tn1\nplain\tn2\n"),
        (("disc", "bar", "plain"), "n0\tdisc\nn1\tbar\nn2\tplain\n"),
        (("0", "1", "2"), "disc\nbar\nplain\n"),
        (("disc", "bar", "plain"), None),
        (("2", "1", "0"), "2\n1\n0\n"),
        (("one", "two"), "disc\nbar\nplain\n"),
    ],
)
def test_the_same_classes_by_any_name_are_taken(trained: tuple[str, ...], text: str | None, tars: Path) -> None:
    require_same_classes(trained, listed(tars, text), known_by="run")  # their number is compared elsewhere


@pytest.mark.parametrize(
    ("trained", "text", "says"),
    [
        (
            ("cat", "bar", "plain"),
            "disc\nbar\nplain\n",
            "1 of 3 classes are not those of run by name: label 0 is 'cat'",
        ),
        (("bar", "disc", "plain"), "disc\nbar\nplain\n", "2 of 3 classes are not those of run in order: label 0 is"),
        (
            ("n1", "n0", "n2"),
            "disc\tn0\nbar\tn1\nplain\tn2\n",
            "in order: label 0 is 'n1' there and 'disc' in tars test",
        ),
        (("0", "1", "2"), "0\n2\n1\n", "2 of 3 classes are not those of run in order: label 1 is '1' there and '2'"),
        (("0", "2", "1"), None, "label 1 is '2' there and '1' in tars test"),
        (("n0", "n1", "n2"), "disc\nbar\nplain\n", "3 of 3 classes.*by name.*further names of each, separated by tabs"),
    ],
)
def test_other_classes_are_refused_with_the_first(trained: tuple[str, ...], text: str, says: str, tars: Path) -> None:
    with pytest.raises(MismatchError, match=says) as caught:
        require_same_classes(trained, listed(tars, text), known_by="run")
    assert "\n" not in str(caught.value)


def test_files_of_weights_say_what_their_classes_are_called(toy: Path, tmp_path: Path) -> None:
    args = {"student": TEACHER, "size": 32, "recipe": "plain", "drop_path": 0.0}
    summary = cskd.train(data=toy, out=tmp_path / "run", **args, **SMALL)
    run = Path(summary.folder)
    cskd.export(run, tmp_path / "exported.safetensors")
    shutil.copy(run / "best.safetensors", tmp_path / "copied.safetensors")
    cskd.export(tmp_path / "copied.safetensors", tmp_path / "again.safetensors")
    cskd.export(run, tmp_path / "exported.pth")
    for name in ("run/best", "run/last", "exported", "copied", "again"):
        assert class_names(tmp_path / f"{name}.safetensors") == ("disc", "bar", "plain")
    assert class_names(tmp_path / "exported.pth") is None
    other = write_toy(tmp_path / "other", order=(1, 0, 2))
    for name in ("run", "copied.safetensors", "exported.safetensors"):
        with pytest.raises(MismatchError, match="in order: label 0 is 'disc' there and 'bar' in other test"):
            cskd.evaluate(tmp_path / name, data=other, size=32, workers=0, device="cpu")
    assert cskd.evaluate(run, data=toy, size=40, workers=0, device="cpu").images == 24, "a CNN takes any size"


def test_images_that_a_run_was_scored_on_are_taken_by_any_name(toy: Path, tars: Path, tmp_path: Path) -> None:
    args = {"student": TEACHER, "size": 32, "recipe": "plain", "drop_path": 0.0}
    run = cskd.train(data=toy, out=tmp_path / "run", **args, **SMALL).folder
    (tars / "classes.txt").write_text("Scheibe\nBalken\nnichts\n")
    assert cskd.evaluate(run, data=tars, workers=0, device="cpu").images == 24


def test_splits_of_other_classes_do_not_go_together(tmp_path: Path) -> None:
    for split, shown in (("train", "abc"), ("test", "acb")):
        write_toy(tmp_path / split, train=32, test=12)
        (tmp_path / split / "classes.txt").write_text("\n".join(shown))
    (tmp_path / "set").mkdir()
    text = (
        "name: set\nroot: {}\nsplits: {{train: {{source: tar, path: 'train/train-*'}}, val: {{source: tar, path: {}}}}}"
    )
    (tmp_path / "set.yaml").write_text(text.format(tmp_path, "'test/test-*'"))
    args = {"student": TEACHER, "size": 32, "recipe": "plain", "drop_path": 0.0}
    with pytest.raises(
        MismatchError, match="not those of the training split in order: label 1 is 'b' there and 'c' in"
    ):
        cskd.train(data=str(tmp_path / "set.yaml"), out=tmp_path / "run", **args, **SMALL)


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """Class folders 1, 2 and 10 with 12 images each under train/, two under val/."""
    for split, count in (("train", 12), ("val", 2)):
        for kind, name in enumerate(("1", "2", "10")):
            (tmp_path / "folders" / split / name).mkdir(parents=True)
            for number in range(count):
                file = tmp_path / "folders" / split / name / f"{split}{number}.jpg"
                file.write_bytes(toy_image(3 * number + kind))
    return tmp_path / "folders"


def test_the_order_of_folders_is_said_once_and_labels_of_another_are_refused(
    folders: Path, teacher_weights: Path, tmp_path: Path
) -> None:
    said: list[str] = []

    def watch(event: object) -> None:
        if isinstance(event, str) and "class order" in event:
            said.append(event)

    teacher: dict[str, Any] = {"teacher": TEACHER, "teacher_args": TEACHER_ARGS, "teacher_weights": teacher_weights}
    crops: dict[str, Any] = {"size": 32, "recipe_args": {"group": 16}, "block": 16, "chunk": 16}
    machine: dict[str, Any] = {"workers": 0, "device": "cpu"}
    store = tmp_path / "labels.zarr"
    cskd.precompute(data=folders, out=store, progress=watch, **teacher, **crops, **machine)
    assert len(said) == 1
    student: dict[str, Any] = {"student": "deit_ti", "student_args": STUDENT_ARGS}
    cskd.train(labels=store, data=folders, out=tmp_path / "run", progress=watch, **student, **SMALL)
    assert len(said) == 2
    cskd.index(data=folders, progress=watch)
    assert len(said) == 3
    (folders / "classes.txt").write_text("1\n2\n10\n")
    cskd.index(data=folders, progress=watch)
    assert len(said) == 3
    with pytest.raises(MismatchError, match=r"digest.*; label 1 was '10' then and is '2' here; use the data"):
        cskd.open(store, data=folders)
    with pytest.raises(MismatchError, match=r"data\.digest is .*; label 1 was '10' then and is '2' here; give the"):
        cskd.verify(str(store), data=folders, teacher_weights=teacher_weights, **machine)
    with pytest.raises(MismatchError, match="in order: label 1 is '10' there and '2' in folders val"):
        cskd.evaluate(tmp_path / "run", data=folders, **machine)
    assert cskd.open(store).index.classes == ("1", "10", "2"), "found by the digest, in the order of the labels"


def test_a_model_of_one_size_says_which() -> None:
    student = create_student("deit_ti", classes=3, args={**STUDENT_ARGS, "img_size": 32})
    require_size(student, 32, file=Path("a.pth"))
    with pytest.raises(
        MismatchError, match=r"a\.pth takes images of 32 x 32 pixels, not of 64 x 64; leave out --size, or"
    ):
        require_size(student, 64, file=Path("a.pth"))
    network = create_student(TEACHER, classes=3)
    require_size(network, 48, file=Path("a.pth"))


def test_packing_takes_all_splits_and_says_what_it_made(folders: Path, tmp_path: Path) -> None:
    said: list[object] = []
    packed = cskd.pack(data=folders, out=tmp_path / "packed", progress=said.append)
    assert (packed.images, packed.classes) == ({"train": 36, "val": 6}, ("1", "10", "2"))
    assert [file.name for files in packed.shards.values() for file in files] == ["train-000000.tar", "val-000000.tar"]
    assert len([event for event in said if isinstance(event, str)]) == 1
    for split in ("train", "val"):
        assert open_split(str(tmp_path / "packed"), split).digest == open_split(str(folders), split).digest
    cskd.index(data=folders, out=tmp_path / "index")
    assert cskd.pack(data=tmp_path / "index", out=tmp_path / "again").images == {"train": 36}
    one = cskd.pack(data=f"{tmp_path}/packed/train-*.tar", split=("validation",), out=tmp_path / "third")
    assert [file.name for file in one.shards["val"]] == ["val-000000.tar"]


def test_parquet_is_packed_with_its_columns_said(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    images = [toy_image(number) for number in range(6)]
    table = pa.table({"photo": images, "kind": ["b", "a"] * 3, "id": range(6)})
    for name in ("train", "test", "extra"):
        pq.write_table(table, tmp_path / f"{name}.parquet")
    said: list[object] = []
    settings: dict[str, Any] = {"data": tmp_path, "label_column": "kind", "out": tmp_path / "out"}
    packed = cskd.pack(**settings, progress=said.append)
    assert (packed.images, packed.classes) == ({"train": 6, "test": 6}, ("a", "b"))
    assert f"left out, being of no split: {tmp_path}/extra.parquet" in said
    assert any("images from column photo, labels from kind, keys numbers of rows" in str(event) for event in said)
