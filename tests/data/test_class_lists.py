"""Labels by name, and the order of class folders: as a class list says it, or refused by name."""

import random
import re

import pytest

from cskd_pipeline.data import class_forms, open_split, pack, remarks, resolve_data
from cskd_pipeline.data.class_list import ClassList, LabelTexts
from cskd_pipeline.errors import DataError

BIRDS = ClassList(
    (("tench", "n0", "0"), ("crane", "n1", "3"), ("hen", "n2", "7"), ("crane", "n3", "9"), ("newt", "n4", "hen")),
    "birds.txt",
)


def test_a_column_that_names_all_is_taken_before_others():
    assert BIRDS.labels_of(["hen", "tench"]) == {"hen": 2, "tench": 0}
    assert BIRDS.labels_of(["n3", "n1"]) == {"n3": 3, "n1": 1}
    assert BIRDS.labels_of(["hen", "7"]) == {"hen": 4, "7": 2}, "the third column has both"
    assert BIRDS.labels_of(["tench", "n3"]) == {"tench": 0, "n3": 3}, "each on one line alone"


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["crane"], r"'crane' \(lines 2, 4\); give each class a name of its own"),
        (["hen", "n0"], r"'hen' \(lines 3, 5\)"),
        (["tanch"], r"1 labels are not in birds.txt: 'tanch' \(did you mean 'tench'\?\)"),
        ([f"x{n}" for n in range(7)], r"7 labels are not in birds.txt: 'x0', 'x1', 'x2', 'x3', 'x4', \.\.\.; correct"),
    ],
)
def test_unknown_and_ambiguous_names_are_listed(texts, expected):
    with pytest.raises(DataError, match=expected):
        BIRDS.labels_of(texts)


def test_a_number_is_a_label_unless_it_may_be_a_name():
    listed = ClassList((("10",), ("3",), ("x",)))
    for texts, doubt, labels in ((["1", "0"], False, [1, 0]), (["x", "0"], False, [2, 0]), (["2", "1"], True, [2, 1])):
        read = LabelTexts(listed, doubt=doubt)
        found = [read.number(text, where="a") for text in texts]
        read.settle(found)
        assert found == labels
    both = ClassList((("1",), ("0",), ("x",)))
    for texts, doubt in ((["x", "0"], False), (["0", "1"], True)):
        read = LabelTexts(both, doubt=doubt)
        found = [read.number(text, where="a") for text in texts]
        with pytest.raises(DataError, match=r"label 0 may be the number of class '1' or the name of class 1"):
            read.settle(found)
    sure = LabelTexts(both)
    found = [sure.number(text, where="a") for text in "01"]
    sure.settle(found)
    assert found == [0, 1], "as packed shards have it"


def test_of_many_unknown_names_not_all_are_waited_for():
    read = LabelTexts(BIRDS)
    with pytest.raises(DataError, match="1000 labels are not in"):
        for number in range(5000):
            read.number(f"caption {number}", where="a.cls")


@pytest.mark.parametrize("column", [0, 1])
def test_shards_with_names_for_labels_are_the_same_data_set(column, as_tars, samples, write_tar, tmp_path):
    (as_tars / "classes.txt").write_text("a\tn1\nb\tn2\n")
    names = (("a", "b"), ("n1", "n2"))[column]
    for shard in range(3):
        members = {}
        for key in list(samples)[shard::3]:
            label, data = samples[key]
            members |= {f"{key}.jpg": data, f"{key}.cls": f"{names[label]}\n".encode()}
        write_tar(tmp_path / "named" / f"train-{shard}.tar", members)
    (tmp_path / "named" / "classes.txt").write_text("a\tn1\nb\tn2\n")
    numbered, named = open_split(str(as_tars), "train"), open_split(str(tmp_path / "named"), "train")
    assert named.digest == numbered.digest
    assert named.classes == ("a", "b")
    assert class_forms(named) == (("a", "n1"), ("b", "n2"))


def test_a_manifest_names_the_classes_of_shards_too(as_tars, write_tar, picture, tmp_path):
    write_tar(tmp_path / "x.tar", {"k.png": picture(1, kind="PNG"), "k.cls": b"n2"})
    (tmp_path / "names.txt").write_text("a\tn1\nb\tn2\n")
    file = tmp_path / "mine.yaml"
    file.write_text("name: mine\nclasses_file: names.txt\nsplits: {train: {source: tar, path: x.tar}}")
    index = open_split(str(file), "train")
    assert index.labels.tolist() == [1]
    assert class_forms(index) == (("a", "n1"), ("b", "n2"))


@pytest.mark.parametrize(
    ("labels", "listed", "expected"),
    [
        (("cat", "dog"), None, r"k0\.cls is 'cat'; a label is a whole number.*where a classes\.txt beside the data"),
        (("cat", "cow"), "cat\ndog\n", r"x\.tar: k1\.cls is 'cow': 1 labels are not in .*classes\.txt: 'cow'"),
        (("crane", "cat"), "crane\tn1\ncat\tn2\ncrane\tn3\n", r"'crane' \(lines 1, 3\)"),
        (("cat", "0"), "0\ncat\n", None),
        (("cat", "1"), "1\ncat\n", r"label 1 may be the number of class 'cat' or the name of class 0"),
    ],
)
def test_names_in_shards_that_say_no_class_are_refused(labels, listed, expected, tmp_path, write_tar, picture):
    members = {}
    for number, label in enumerate(labels):
        members |= {f"k{number}.png": picture(number, kind="PNG"), f"k{number}.cls": label.encode()}
    write_tar(tmp_path / "x.tar", members)
    if listed is not None:
        (tmp_path / "classes.txt").write_text(listed)
    if expected is None:
        assert sorted(open_split(str(tmp_path / "x.tar"), "train").labels.tolist()) == [0, 1]
        return
    with pytest.raises(DataError, match=expected) as caught:
        open_split(str(tmp_path / "x.tar"), "train")
    assert "\n" not in str(caught.value)


@pytest.fixture
def numbers(tmp_path, picture):
    """Class folders 1, 2, 10 under train/ and val/."""
    for split in ("train", "val"):
        for name in ("1", "2", "10"):
            file = tmp_path / "numbers" / split / name / f"{split}.png"
            file.parent.mkdir(parents=True)
            file.write_bytes(picture(len(split) + int(name), kind="PNG"))
    return tmp_path / "numbers"


def labels(index):
    return {index.key(row).split("/")[0]: int(index.labels[row]) for row in range(len(index))}


def said(data, split="train"):
    return remarks(resolve_data(str(data)), open_split(str(data), split))


def test_class_folders_without_a_list_are_in_order_of_text_and_it_is_said(numbers):
    assert labels(open_split(str(numbers), "train")) == {"1": 0, "10": 1, "2": 2}
    (line,) = said(numbers)
    for text in ("as text", "label 1 is '10'", "timm", "has '2' there", f"classes.txt in {numbers}", "natural"):
        assert text in line
    assert len(said(numbers / "train")) == 1
    (numbers / "m.yaml").write_text("name: m\nsplits: {train: {source: folder, path: train}}")
    assert len(said(numbers / "m.yaml")) == 1
    (numbers / "m.yaml").write_text(
        "name: m\nclasses: ['1', '10', '2']\nsplits: {train: {source: folder, path: train}}"
    )
    assert said(numbers / "m.yaml") == []


@pytest.mark.parametrize("names", [("a", "b"), ("n01", "n10", "n02"), ("0", "1", "9")])
def test_where_both_orders_agree_nothing_is_said(names, tmp_path, picture):
    for name in names:
        (tmp_path / "x" / name).mkdir(parents=True)
        (tmp_path / "x" / name / "1.png").write_bytes(picture(1, kind="PNG"))
    assert said(tmp_path / "x") == []


def test_capitals_count_in_our_order_alone(tmp_path, picture):
    for name in ("Zebra", "ant"):
        (tmp_path / "x" / name).mkdir(parents=True)
        (tmp_path / "x" / name / "1.png").write_bytes(picture(1, kind="PNG"))
    assert "label 0 is 'Zebra'" in said(tmp_path / "x")[0]


def test_timms_order_is_the_one_that_is_said(tmp_path):
    from timm.utils.misc import natural_key

    from cskd_pipeline.data.opening import _natural

    draw = random.Random(0)
    names = ["".join(draw.choices("aB019_-", k=draw.randint(1, 6))) for _ in range(300)]
    assert sorted(names, key=_natural) == sorted(names, key=natural_key)


@pytest.mark.parametrize("place", [".", "train"])
@pytest.mark.parametrize("lines", ["1\n2\n10\n", "one\t1\ntwo\t2\nten\t10\n", "1\tone\n2\ttwo\n10\tten\n"])
def test_a_class_list_sets_the_order_of_class_folders(place, lines, numbers):
    before = open_split(str(numbers), "train")
    (numbers / place / "classes.txt").write_text(lines)
    for split in ("train", "val"):
        index = open_split(str(numbers), split)
        assert labels(index) == {"1": 0, "2": 1, "10": 2}
        assert index.classes == ("1", "2", "10"), "the folders' names, in whichever column they are"
        assert index.left_out == ""
    assert open_split(str(numbers), "train").digest != before.digest
    assert said(numbers) == []
    assert open_split(str(numbers), "train").folder != before.folder
    if "one" in lines:
        assert class_forms(index)[2] == ("10", "ten")


def test_a_class_list_of_the_order_by_text_changes_nothing(numbers):
    before = open_split(str(numbers), "train").digest
    (numbers / "classes.txt").write_text("1\n10\n2\n")
    assert open_split(str(numbers), "train").digest == before
    assert said(numbers) == [], "it was chosen"


def test_class_folders_alone_have_their_list_among_them(numbers):
    (numbers / "train" / "classes.txt").write_text("2\n1\n10\n")
    assert labels(open_split(str(numbers / "train"), "train")) == {"2": 0, "1": 1, "10": 2}


def test_a_manifest_without_classes_takes_the_list_beside_the_folders(numbers):
    (numbers / "m.yaml").write_text("name: m\nsplits: {train: {source: folder, path: train}}")
    (numbers / "classes.txt").write_text("2\n1\n10\n")
    assert labels(open_split(str(numbers / "m.yaml"), "train")) == {"2": 0, "1": 1, "10": 2}
    (numbers / "list.txt").write_text("ten\t10\none\t1\ntwo\t2\n")
    (numbers / "m.yaml").write_text("name: m\nclasses_file: list.txt\nsplits: {train: {source: folder, path: train}}")
    assert labels(open_split(str(numbers / "m.yaml"), "train")) == {"10": 0, "1": 1, "2": 2}


def test_a_class_without_a_folder_keeps_its_label_and_is_named(numbers, picture):
    (numbers / "classes.txt").write_text("0\n1\n2\n3\n10\n")
    file = numbers / "val" / "3" / "x.png"
    file.parent.mkdir()
    file.write_bytes(picture(9, kind="PNG"))
    assert labels(open_split(str(numbers), "train")) == {"1": 1, "2": 2, "10": 4}
    assert labels(open_split(str(numbers), "val")) == {"1": 1, "2": 2, "3": 3, "10": 4}
    assert said(numbers) == ["2 of 5 classes have no folder in train: 0, 3"]
    assert said(numbers, "val") == ["1 of 5 classes have no folder in val: 0"]


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("1\n2\n", r"1 class folders are not in .*numbers/classes\.txt: '10'"),
        ("a\nb\n", r"3 class folders are not in .*classes\.txt: '1', '10', '2'"),
        ("1\t2\n10\tx\n", r"class folders '1' and '2' are both on line 1"),
        ("1\n\n2\n10\n", "line 2 names no class"),
    ],
)
def test_a_list_that_does_not_fit_the_folders_is_refused(lines, expected, numbers):
    (numbers / "classes.txt").write_text(lines)
    with pytest.raises(DataError, match=expected):
        resolve_data(str(numbers))


def test_a_folder_of_one_split_that_the_list_lacks_is_refused(numbers, picture):
    (numbers / "classes.txt").write_text("1\n2\n10\n")
    (numbers / "val" / "3").mkdir()
    (numbers / "val" / "3" / "x.png").write_bytes(picture(9, kind="PNG"))
    with pytest.raises(DataError, match="1 folders that are no class: 3"):
        open_split(str(numbers), "val")


def test_two_lists_that_differ_are_refused(numbers):
    (numbers / "classes.txt").write_text("1\n2\n10\n")
    (numbers / "train" / "classes.txt").write_text("1\n2\n10\n")
    assert labels(open_split(str(numbers), "val"))["10"] == 2
    (numbers / "train" / "classes.txt").write_text("10\n2\n1\n")
    with pytest.raises(DataError, match=re.escape(f"{numbers}/classes.txt and {numbers}/train/classes.txt differ")):
        open_split(str(numbers), "val")


def test_packed_folders_keep_the_order_that_was_set(numbers, tmp_path):
    (numbers / "classes.txt").write_text("0\tzero\n1\tone\n2\ttwo\n10\tten\n")
    index = open_split(str(numbers), "train")
    pack(index, tmp_path / "packed")
    again = open_split(str(tmp_path / "packed"), "train")
    assert (again.digest, again.classes) == (index.digest, ("0", "1", "2", "10"))
