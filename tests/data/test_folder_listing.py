"""Image folders hold the classes that were expected, and every image in them, or are refused by name."""

import pytest

from cskd_pipeline.data import open_split
from cskd_pipeline.data.folder_listing import list_folder
from cskd_pipeline.errors import DataError


@pytest.fixture
def folder(tmp_path):
    for name in ("train/dog/1.jpg", "train/dog/2.PNG", "train/cat/1.webp", "train/cat/deep/1.jpeg", "train/ant/x.jpg"):
        file = tmp_path / "set" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(name.encode())
    return tmp_path / "set"


def test_classes_are_sorted_and_keys_are_class_and_stem(folder):
    listing = list_folder(folder, "train", classes=())
    assert listing.classes == ("ant", "cat", "dog")
    found = dict(zip(listing.keys, listing.labels, strict=True))
    assert found == {"ant/x": 0, "cat/1": 1, "cat/deep/1": 1, "dog/1": 2, "dog/2": 2}
    assert listing.lengths == [len(name) for name in listing.files]


def test_the_order_of_classes_is_the_manifests(folder):
    listing = list_folder(folder, "train", classes=("dog", "ant", "cat"))
    assert dict(zip(listing.keys, listing.labels, strict=True))["dog/1"] == 0


def test_a_class_folder_may_be_a_link(folder):
    (folder / "elsewhere").mkdir()
    (folder / "train" / "ant").rename(folder / "elsewhere" / "ant")
    (folder / "train" / "ant").symlink_to(folder / "elsewhere" / "ant")
    assert "ant/x" in list_folder(folder, "train", classes=()).keys


def test_what_is_no_image_is_passed_over(folder):
    (folder / "train" / "dog" / "notes.txt").write_text("")
    (folder / "train" / "dog" / ".hidden.jpg").write_text("")
    (folder / "train" / "list.txt").write_text("")
    assert len(list_folder(folder, "train", classes=()).keys) == 5


def test_a_missing_class_folder_is_an_error(folder):
    with pytest.raises(DataError, match="lacks 1 of 4 class folders: bee"):
        list_folder(folder, "train", classes=("ant", "bee", "cat", "dog"))


def test_an_unknown_class_folder_is_an_error(folder):
    with pytest.raises(DataError, match="1 folders that are no class: dog"):
        list_folder(folder, "train", classes=("ant", "cat"))


def test_a_class_missing_from_the_second_split_does_not_shift_labels(as_folder, picture):
    (as_folder / "val" / "b").mkdir(parents=True)
    (as_folder / "val" / "b" / "1.png").write_bytes(picture(1, kind="PNG"))
    with pytest.raises(DataError, match="lacks 1 of 2 class folders: a"):
        open_split(str(as_folder), "val")


def test_an_empty_class_folder_is_an_error(folder):
    (folder / "train" / "eel").mkdir()
    with pytest.raises(DataError, match=r"eel holds no image"):
        list_folder(folder, "train", classes=())


def test_an_empty_split_is_an_error(tmp_path):
    (tmp_path / "train").mkdir()
    with pytest.raises(DataError, match="holds no class folder"):
        open_split(str(tmp_path), "train")


def test_a_missing_split_folder_is_an_error(tmp_path):
    with pytest.raises(DataError, match="is not a folder"):
        list_folder(tmp_path, "train", classes=())


def test_two_files_of_one_key_are_an_error(folder):
    (folder / "train" / "dog" / "1.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"dog/1\.jpg and .*dog/1\.png share the key 'dog/1'"):
        list_folder(folder, "train", classes=())


def test_an_image_of_a_kind_that_is_not_read_is_an_error(folder):
    (folder / "train" / "dog" / "3.bmp").write_bytes(b"")
    with pytest.raises(DataError, match=r"3\.bmp: \.bmp images are not read"):
        list_folder(folder, "train", classes=())
