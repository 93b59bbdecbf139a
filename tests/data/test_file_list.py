"""A list of files and labels is a split like any other, in the forms that people have; or it is refused by line."""

import re
import shutil

import pytest

from cskd_pipeline.data import data_source, find_split, open_split, pack, read_manifest, resolve_data
from cskd_pipeline.errors import DataError, UsageError

CLASSES = ("n01", "n02")


@pytest.fixture
def flat(tmp_path, picture):
    """train/ with class folders, val/ with four images in it and nothing that says what they show."""
    root = tmp_path / "flat"
    for number in range(6):
        file = root / "train" / CLASSES[number % 2] / f"{number}.JPEG"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(picture(number))
    (root / "val").mkdir()
    for number in range(4):
        (root / "val" / f"val_{number}.JPEG").write_bytes(picture(10 + number))
    return root


def labels(index):
    return {index.key(row): int(index.labels[row]) for row in range(len(index))}


EXPECTED = {"val_0": 0, "val_1": 1, "val_2": 0, "val_3": 1}

FORMS = {
    "blanks": ("val.txt", "val_{n}.JPEG {label}\n", ""),
    "several blanks": ("val.txt", "  ./val_{n}.JPEG   {label} \r\n\n", "\ufeff"),
    "folder's name": ("val.txt", "val/val_{n}.JPEG {label}\n", ""),
    "ids": ("val.txt", "val_{n}.JPEG {wnid}\n", ""),
    "no suffix": ("val.txt", "val_{n} {wnid}\n", ""),
    "tabs, further columns": ("val.tsv", "val_{n}.JPEG\t{wnid}\t0\t32\t44\t62\n", ""),
    "tabs in a text": ("val.txt", "val_{n}.JPEG\t{label}\n", ""),
    "commas": ("val.csv", "val_{n}.JPEG,{wnid}\n", ""),
    "semicolons": ("val.csv", "val_{n}.JPEG;{label}\n", ""),
    "heading": ("val.csv", "{n},{wnid},val_{n}.JPEG\n", ",Label,File_Name\n"),
    "quotes": ("val.csv", '"val_{n}.JPEG","{wnid}"\n', '"image","class"\n'),
    "Kaggle's": ("val.csv", "val_{n},{wnid} 85 1 499 272 {wnid} 1 2 3 4 \n", "ImageId,PredictionString\n"),
    "another word": ("VALIDATION.TXT", "val_{n}.JPEG {label}\n", ""),
    "inside": ("val/annotations.txt", "val_{n}.JPEG {label}\n", ""),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_list_beside_images_in_one_folder_says_what_they_show(form, flat):
    name, line, start = FORMS[form]
    lines = [line.format(n=n, label=n % 2, wnid=CLASSES[n % 2]) for n in range(4)]
    (flat / name).write_text(start + "".join(lines), encoding="utf-8", newline="")
    source = resolve_data(str(flat))
    assert (source.splits, source.manifest.classes) == (("train", "val"), CLASSES)
    index = open_split(source, "val")
    assert labels(index) == EXPECTED
    assert index.classes == CLASSES
    assert all(index.decode(row).shape == (8, 12, 3) for row in range(4))
    assert index.left_out == ""


def test_images_may_lie_in_a_folder_of_that_name(flat):
    (flat / "val").rename(flat / "images")
    (flat / "val").mkdir()
    (flat / "images").rename(flat / "val" / "images")
    (flat / "val" / "annotations.txt").write_text("".join(f"val_{n}.JPEG\t{CLASSES[n % 2]}\t0\n" for n in range(4)))
    assert labels(open_split(str(flat), "val")) == EXPECTED


def test_a_list_of_class_folders_is_the_same_data_set_as_the_folders(flat):
    (flat / "val.txt").write_text("".join(f"val_{n}.JPEG {n % 2}\n" for n in range(4)))
    folders = open_split(str(flat), "train")
    (flat / "some.txt").write_text("".join(f"train/{c}/{n}.JPEG {c}\n" for n in range(6) for c in [CLASSES[n % 2]]))
    (flat / "m.yaml").write_text(
        "name: m\nclasses: [n01, n02]\nsplits: {train: {source: list, path: train, list: some.txt, count: 6}}"
    )
    listed = open_split(str(flat / "m.yaml"), "train")
    assert listed.digest == folders.digest
    assert [listed.read(row) for row in range(6)] == [folders.read(row) for row in range(6)]


def test_a_list_by_itself_is_a_data_set(flat):
    (flat / "val.txt").write_text("".join(f"val_{n}.JPEG {n % 2}\n" for n in range(4)))
    index = open_split(str(flat / "val.txt"), "val")
    assert (labels(index), index.classes, index.name) == (EXPECTED, ("0", "1"), "flat")
    (flat / "classes.txt").write_text("fish\tn01\nbird\tn02\n")
    assert open_split(str(flat / "val.txt"), "val").classes == ("fish", "bird")
    (flat / "val.txt").rename(flat / "mine.txt")
    (flat / "mine.txt").write_text("".join(f"val/val_{n}.JPEG {CLASSES[n % 2]}\n" for n in range(4)))
    for split in ("train", "test"):
        assert labels(open_split(str(flat / "mine.txt"), split)) == {f"val/{key}": n for key, n in EXPECTED.items()}


def test_a_listed_split_is_found_again_packed_and_seen_to_change(flat, tmp_path):
    (flat / "val.txt").write_text("".join(f"val_{n}.JPEG {n % 2}\n" for n in range(4)))
    index = open_split(str(flat), "val")
    assert open_split(str(flat), "validation").folder == index.folder
    assert find_split(digest=index.digest, name="x", split="val").folder == index.folder
    assert open_split(data_source(open_split(str(flat), "train")), "val").digest == index.digest
    pack(index, tmp_path / "packed")
    assert open_split(str(tmp_path / "packed"), "val").digest == index.digest
    shutil.rmtree(tmp_path / "packed")
    (flat / "val.txt").write_text("".join(f"val_{n}.JPEG {1 - n % 2}\n" for n in range(4)))
    assert open_split(str(flat), "val").digest != index.digest
    with pytest.raises(DataError, match="changed since"):
        find_split(digest=index.digest, name="x", split="val")
    (flat / "val" / "val_2.JPEG").write_bytes(b"\xff\xd8\xff")
    with pytest.raises(DataError, match="has 3 bytes"):
        index.read(list(labels(index)).index("val_2"))


def test_images_that_are_not_listed_are_named(flat):
    (flat / "val.txt").write_text("val_1.JPEG 1\nval_3.JPEG 0\n")
    assert open_split(str(flat), "val").left_out == "2 (val/val_0.JPEG, val/val_2.JPEG)"


def test_a_known_set_may_have_a_flat_split_too(flat, monkeypatch):
    known = flat.parent / "known.yaml"
    known.write_text(
        "name: known\nclasses: [n01, n02]\n"
        "splits: {train: {source: folder, path: train}, val: {source: folder, path: val, count: 4}}"
    )
    monkeypatch.setattr("cskd_pipeline.data.source.manifest_names", lambda: ["known"])
    monkeypatch.setattr("cskd_pipeline.data.source.load_manifest", lambda name: read_manifest(known)[0])
    with pytest.raises(DataError, match=r"put a list beside it, val\.txt"):
        open_split("known", "val", root=flat)
    (flat / "val.txt").write_text("".join(f"val_{n}.JPEG n0{1 + n % 2}\n" for n in range(4)))
    assert labels(open_split("known", "val", root=flat)) == EXPECTED
    (flat / "val.txt").write_text("".join(f"val_{n}.JPEG n0{1 + n % 2}\n" for n in range(3)))
    with pytest.raises(DataError, match="holds 3 images, the manifest says 4"):
        open_split("known", "val", root=flat)


def test_flat_splits_beside_other_folders_are_no_classes(flat):
    shutil.rmtree(flat / "train")
    (flat / "photos").mkdir()
    (flat / "photos" / "x.JPEG").write_bytes((flat / "val" / "val_0.JPEG").read_bytes())
    (flat / "val.txt").write_text("".join(f"val_{n}.JPEG {n % 2}\n" for n in range(4)))
    source = resolve_data(str(flat))
    assert (source.splits, source.left_out) == (("val",), ("photos",))
    assert labels(open_split(source, "val")) == EXPECTED


def test_a_readme_is_no_list_where_there_is_one(flat):
    (flat / "val" / "README.txt").write_text("Four images.")
    (flat / "val.txt").write_text("".join(f"val_{n}.JPEG {n % 2}\n" for n in range(4)))
    assert labels(open_split(str(flat), "val")) == EXPECTED


REFUSED = {
    "none": (
        None,
        r"holds no class folder; expected n01, n02; .*put a list beside it, val\.txt, with a line FILE LABEL",
    ),
    "empty": ("\n", r"val\.txt is empty; a line is FILE LABEL"),
    "no text": (b"\xff\xfe\x00", r"val\.txt cannot be read"),
    "labels alone": ("1\n2\n", r"line 1 is '1'; a line is FILE LABEL"),
    "no such files": ("x.JPEG 1\n", r"line 1 names 'x\.JPEG', which is in none of .*flat/val, .*flat; a line is FILE"),
    "unknown heading": (
        "photo,kind\nval_0.JPEG,0\n",
        r"line 1 names 'photo'.*a heading needs the words file and label",
    ),
    "some missing": ("val_0.JPEG 0\na.JPEG 0\nb.JPEG 1\n", r"names 2 files that are not there: a\.JPEG, b\.JPEG; comp"),
    "a line cut short": ("val_0.JPEG 0\nval_1.JPEG\n", r"line 2 is 'val_1\.JPEG'; a line is FILE LABEL"),
    "unknown name": (
        "val_0.JPEG n01\nval_1.JPEG n03\n",
        r"line 2: the label is 'n03': 1 labels are not in the classes of",
    ),
    "labels from 1": ("val_0.JPEG 1\nval_1.JPEG 2\n", r"line 2 has label 2, but there are 2 classes: labels go from 0"),
    "a negative label": ("val_0.JPEG -1\n", r"the label is '-1': 1 labels are not in"),
    "twice": ("val_0.JPEG 1\n../val/val_0.JPEG 0\n", r"names '\.\./val/val_0\.JPEG' on lines 1 and 2"),
    "elsewhere": ("val_0.JPEG 1\n/etc/hostname 0\n", r"line 2 names '/etc/hostname', which does not lie below"),
    "another kind": ("val_0.JPEG 1\nlist.gif 0\n", r"line 2 names 'list\.gif'; \.jpg, \.jpeg, \.png, \.webp files"),
    "an image of two kinds": ("val_0.JPEG 1\nval_0.png 0\n", r"val_0\.JPEG and val/val_0\.png.* share the key 'val_0'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_a_list_gets_wrong_is_named(case, flat, picture):
    content, expected = REFUSED[case]
    (flat / "val" / "list.gif").write_bytes(b"GIF8")
    if case == "an image of two kinds":
        (flat / "val" / "val_0.png").write_bytes(picture(1, kind="PNG"))
    if content is not None:
        (flat / "val.txt").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=expected) as caught:
        open_split(str(flat), "val")
    assert "\n" not in str(caught.value)


def test_two_lists_are_refused(flat):
    for name in ("val.txt", "val.csv"):
        (flat / name).write_text("val_0.JPEG 1\n")
    with pytest.raises(DataError, match=r"2 lists for the images in val: val\.csv, val\.txt; keep one"):
        resolve_data(str(flat))


@pytest.mark.parametrize("text", ["val_{n} {n}\n", "val_{n} {n}000000\n"])
def test_numbers_that_count_are_no_labels(text, flat):
    (flat / "list.txt").write_text("".join(text.format(n=n) for n in range(4)))
    (flat / "m.yaml").write_text("name: m\nsplits: {val: {source: list, path: val, list: list.txt}}")
    with pytest.raises(
        DataError, match=r"this looks like a running number; give a list of labels, or put a classes\.txt"
    ):
        open_split(str(flat / "m.yaml"), "val")


def test_a_number_that_may_be_a_folders_name_is_refused(tmp_path, picture):
    for name in ("1", "2", "10"):
        (tmp_path / "x" / "train" / name).mkdir(parents=True)
        (tmp_path / "x" / "train" / name / "a.png").write_bytes(picture(1, kind="PNG"))
    (tmp_path / "x" / "val").mkdir()
    (tmp_path / "x" / "val" / "a.png").write_bytes(picture(2, kind="PNG"))
    (tmp_path / "x" / "val.txt").write_text("a.png 2\n")
    assert labels(open_split(str(tmp_path / "x"), "val")) == {"a": 2}, "number and name agree"
    (tmp_path / "x" / "val.txt").write_text("a.png 1\n")
    with pytest.raises(DataError, match="label 1 may be the number of class '10' or the name of class 0"):
        open_split(str(tmp_path / "x"), "val")


def test_a_list_that_a_manifest_names_must_be_there(flat):
    (flat / "m.yaml").write_text("name: m\nsplits: {val: {source: list, path: val, list: gone.txt}}")
    with pytest.raises(DataError, match=re.escape(f"the list {flat}/gone.txt does not exist")):
        open_split(str(flat / "m.yaml"), "val")


def test_a_list_in_object_storage_is_refused(tmp_path):
    (tmp_path / "m.yaml").write_text("name: m\nroot: s3://b/p\nsplits: {val: {source: list, path: val, list: v.txt}}")
    with pytest.raises(UsageError, match="not read from object storage"):
        resolve_data(str(tmp_path / "m.yaml"))
