"""Whatever `--data` names is found, or refused with what there is."""

from pathlib import Path

import pytest

from cskd_pipeline.data import evaluation_split, resolve_data
from cskd_pipeline.data.class_list import ClassList
from cskd_pipeline.data.shards import find_shards
from cskd_pipeline.errors import DataError, UsageError
from cskd_pipeline.storage import FolderStorage

IMAGENETTE_SPLITS = ("train", "val")


@pytest.fixture(autouse=True)
def no_root(monkeypatch):
    monkeypatch.delenv("CSKD_DATA_ROOT", raising=False)


def make(folder, *names):
    for name in names:
        path = folder / name
        if name.endswith("/"):
            path.mkdir(parents=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"")
    return folder


@pytest.mark.parametrize("inner", [".", "imagenette"])
@pytest.mark.parametrize("by", ["argument", "variable"])
def test_a_name_is_found_in_the_root_or_in_its_folder_there(inner, by, tmp_path, monkeypatch):
    make(tmp_path / inner, "train/", "val/")
    if by == "variable":
        monkeypatch.setenv("CSKD_DATA_ROOT", str(tmp_path))
    source = resolve_data("imagenette", root=tmp_path if by == "argument" else None)
    assert source.root.address == str(tmp_path / inner)
    assert source.splits == IMAGENETTE_SPLITS


def test_a_name_without_a_root_says_how_to_give_one():
    with pytest.raises(UsageError, match="CSKD_DATA_ROOT"):
        resolve_data("imagenette")


def test_a_name_that_is_not_in_the_root_says_how_to_get_the_set(tmp_path):
    with pytest.raises(DataError, match=r"expected train, val inside.*How to get it: Download"):
        resolve_data("imagenette", root=tmp_path)


def test_a_generated_set_needs_no_root():
    assert evaluation_split(resolve_data("shapes")) == "val"


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(UsageError, match=r"did you mean 'shapes'.*known manifests: cifar10"):
        resolve_data("shape")


FOLDERS = {
    "split folders": (("train/a/", "train/b/", "test/a/", "test/b/"), ("train", "test"), ("a", "b")),
    "class folders": (("dog/", "cat/", ".hidden/"), ("train",), ("cat", "dog")),
    "shards with a dash": (("train-0.tar", "val-0.tar", "test-0.tar"), ("train", "val", "test"), ()),
    "shards with an underscore": (("train_0.tar", "test_0.tar"), ("train", "test"), ()),
}


@pytest.mark.parametrize("case", FOLDERS)
def test_a_folder_is_understood_by_its_layout(case, tmp_path):
    names, splits, classes = FOLDERS[case]
    source = resolve_data(str(make(tmp_path / "mine", *names)))
    assert (source.manifest.name, source.splits, source.manifest.classes) == ("mine", splits, classes)


def test_the_classes_of_folders_are_those_of_the_training_split(tmp_path):
    make(tmp_path, "train/a/", "train/b/", "val/b/")
    assert resolve_data(str(tmp_path)).manifest.classes == ("a", "b")


def test_an_empty_folder_is_refused_with_what_was_expected(tmp_path):
    with pytest.raises(DataError, match="holds no data set: expected train/"):
        resolve_data(str(tmp_path))


def test_shards_of_no_known_split_ask_for_a_pattern(tmp_path):
    make(tmp_path, "sample-0.tar")
    with pytest.raises(UsageError, match="name them by a pattern"):
        resolve_data(str(tmp_path))


@pytest.mark.parametrize(
    ("splits", "expected"),
    [(("train", "val", "test"), "val"), (("train", "test"), "test"), (("train",), None)],
)
def test_evaluation_prefers_val_then_test(splits, expected, tmp_path):
    make(tmp_path, *(f"{split}/a/" for split in splits))
    assert evaluation_split(resolve_data(str(tmp_path))) == expected


def test_a_misspelt_split_is_answered_with_those_there_are(tmp_path):
    make(tmp_path, "train/a/", "test/a/")
    with pytest.raises(UsageError, match=r"no split 'trian' \(did you mean 'train'\?\); it has train, test"):
        resolve_data(str(tmp_path)).split("trian")


def test_a_pattern_without_a_split_is_whichever_is_asked_for(tmp_path):
    make(tmp_path, "part-0.tar", "part-1.tar")
    source = resolve_data(f"{tmp_path}/part-*.tar")
    assert source.root.address == str(tmp_path)
    assert source.split("val") == source.split("train")
    assert evaluation_split(source) is None, "training must not take its own images for validation"
    with pytest.raises(UsageError, match="vall"):
        source.split("vall")


def test_a_pattern_with_a_split_has_the_splits_that_exist(tmp_path):
    make(tmp_path, "mine_train/0.tar", "mine_val/0.tar")
    source = resolve_data(f"{tmp_path}/mine_{{split}}/{{0..0}}.tar")
    assert source.splits == ("train", "val")
    assert [file.name for file in find_shards(source.root, source.split("val").path)] == ["mine_val/0.tar"]


def test_braces_name_every_shard_in_order(tmp_path):
    make(tmp_path, *(f"x-{number:03d}.tar" for number in range(12)))
    files = find_shards(FolderStorage(tmp_path), "x-{002..010}.tar")
    assert [file.name for file in files] == [f"x-{number:03d}.tar" for number in range(2, 11)]


def test_a_shard_that_braces_name_and_the_disk_lacks_is_an_error(tmp_path):
    make(tmp_path, "x-0.tar", "x-2.tar")
    with pytest.raises(DataError, match=r"x-1\.tar does not exist"):
        resolve_data(f"{tmp_path}/x-{{0..2}}.tar")


def test_a_pattern_that_matches_nothing_is_an_error(tmp_path):
    with pytest.raises(DataError, match="no file under"):
        resolve_data(f"{tmp_path}/*.tar")


@pytest.mark.parametrize("text", ["https://host/x-{0..9}.tar", "http://host/folder", "file:///x.tar", "s3:/b/a"])
def test_addresses_of_other_kinds_are_refused(text):
    with pytest.raises(UsageError, match="no address of an object store; give s3://bucket/path, gs://bucket/path or a"):
        resolve_data(text)


def test_braces_that_do_not_balance_are_refused(tmp_path):
    with pytest.raises(UsageError, match="balance"):
        resolve_data(f"{tmp_path}/x-{{0..2.tar")


@pytest.mark.parametrize(("line", "folder"), [("root: data", "data"), ("", ".")])
def test_the_root_of_a_manifest_file_is_relative_to_the_file(line, folder, tmp_path, monkeypatch):
    make(tmp_path, "sets/data/")
    (tmp_path / "sets" / "mine.yaml").write_text(f"name: mine\n{line}\nsplits: {{train: {{source: tar, path: a.tar}}}}")
    monkeypatch.chdir(tmp_path)
    assert Path(resolve_data("sets/mine.yaml").root.address).resolve() == (tmp_path / "sets" / folder).resolve()


def test_two_classes_of_one_name_are_told_apart():
    assert ClassList.parse(b"crane\tn1\ntench\tn2\ncrane\tn3\n", where="x").names == (
        "crane (n1)",
        "tench",
        "crane (n3)",
    )


def test_a_class_list_is_utf_8_with_or_without_a_byte_order_mark():
    assert ClassList.parse("\ufeffcafé\r\nnew\u2028line\r\n".encode(), where="x").names == ("café", "new\u2028line")


@pytest.mark.parametrize(
    ("text", "expected"), [("a\n\nb\n", "line 2"), ("\n", "empty"), ("a\tx\na\tx\n", "lines 1 and 2")]
)
def test_a_class_list_with_a_hole_is_refused(text, expected):
    with pytest.raises(DataError, match=f"classes.txt.*{expected}"):
        ClassList.parse(text.encode(), where="classes.txt")
