"""Shards are indexed whole or refused by name; nothing in them goes missing without a word."""

import bz2
import gzip
import tarfile

import numpy as np
import pytest

from cskd_pipeline.data import open_split
from cskd_pipeline.data.class_list import ClassList
from cskd_pipeline.data.shards import find_shards
from cskd_pipeline.data.tar_listing import list_tars
from cskd_pipeline.errors import DataError
from cskd_pipeline.storage import FolderStorage

NONE, PETS = ClassList(), ClassList((("a",), ("b",)))


@pytest.fixture
def list_one(tmp_path, write_tar):
    def listing(members, classes=NONE):
        write_tar(tmp_path / "x.tar", members)
        return list_tars(root := FolderStorage(tmp_path), find_shards(root, "x.tar"), classes=classes)

    return listing


def test_ranges_are_where_the_bytes_are(tmp_path, list_one):
    members = {"k/1.cls": b"1\n", "k/1.jpg": b"first", "k/0.png": b"second!", "k/0.cls": b" 0"}
    listing = list_one(members)
    data = (tmp_path / "x.tar").read_bytes()
    found = {
        key: (label, data[offset : offset + length])
        for key, label, offset, length in zip(
            listing.keys, listing.labels, listing.offsets, listing.lengths, strict=True
        )
    }
    assert found == {"k/1": (1, b"first"), "k/0": (0, b"second!")}
    assert listing.files == ["x.tar"]


@pytest.mark.parametrize("suffix", ["jpg", "jpeg", "png", "webp", "JPEG", "Jpg", "PNG"])
def test_suffixes_are_told_apart_without_regard_to_case(suffix, list_one):
    assert list_one({f"./a.{suffix}": b"x", "./a.cls": b"0"}).keys == ["a"]


def test_other_members_are_passed_over(list_one):
    members = {"a.jpg": b"x", "a.cls": b"0", "a.json": b"{}", "a.seg.npy": b"", "README": b"", "._a.jpg": b"mac"}
    assert list_one(members).keys == ["a"]


def test_a_label_may_have_a_byte_order_mark_and_space_around_it(list_one):
    assert list_one({"a.jpg": b"x", "a.cls": b"\xef\xbb\xbf 1\r\n"}).labels == [1]


def test_an_image_may_have_a_mask_of_a_kind_that_is_not_read(list_one):
    assert list_one({"a.jpg": b"x", "a.cls": b"0", "a.tif": b"x", "a.depth.tiff": b"x"}).keys == ["a"]


def test_without_a_class_list_classes_are_numbered(list_one):
    assert list_one({"a.jpg": b"x", "a.cls": b"2"}).classes == ("0", "1", "2")


REFUSED = {
    "no label": ({"a.jpg": b"x"}, r"sample 'a'.*no label a\.cls"),
    "no image": ({"a.cls": b"0"}, "sample 'a'.*no image"),
    "two images": ({"a.jpg": b"x", "a.png": b"x", "a.cls": b"0"}, "two images of one key"),
    "a label twice": ({"a.jpg": b"x", "a.cls": b"0", "./a.cls": b"1"}, "twice"),
    "a label that is no number": ({"a.jpg": b"x", "a.cls": b"cat"}, "is 'cat'; a label is a whole number"),
    "a negative label": ({"a.jpg": b"x", "a.cls": b"-1"}, "is '-1'"),
    "a label that is a fraction": ({"a.jpg": b"x", "a.cls": b"1.0"}, "is '1.0'; a label is a whole number"),
    "a label in other digits": ({"a.jpg": b"x", "a.cls": "٣".encode()}, "a label is a whole number"),
    "a label that is a time stamp": ({"a.jpg": b"x", "a.cls": b"1700000000"}, r"label 1700000000 \(a\.cls\) among 1"),
    "a label that is an id": ({"a.jpg": b"x", "a.cls": b"5000000"}, "put a classes.txt beside the shards"),
    "an image of another kind": ({"a.jpg": b"x", "a.cls": b"0", "b.gif": b"x"}, r"images such as b\.gif are not read"),
    "a name that is no UTF-8": ({"a\udcff.jpg": b"x"}, r"a\\udcff\.jpg' is not UTF-8"),
    "an empty label": ({"a.jpg": b"x", "a.cls": b""}, "is ''"),
    "a label that is a file of another kind": ({"a.jpg": b"x", "a.cls": b"1" * 5000}, "a label is a whole number"),
    "a dotted key": ({"a.1.jpg": b"x", "a.1.cls": b"0"}, "dot in its key"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_wrong_sample_is_named_with_its_shard(case, list_one):
    members, expected = REFUSED[case]
    with pytest.raises(DataError, match=expected) as caught:
        list_one(members)
    assert "x.tar" in str(caught.value)


def test_a_label_beyond_the_classes_is_an_error(list_one):
    with pytest.raises(DataError, match=r"label 2, but there are 2 classes \(0 to 1\)"):
        list_one({"a.jpg": b"x", "a.cls": b"2"}, classes=PETS)


def test_a_key_in_two_shards_names_both(tmp_path, write_tar):
    for name in ("x.tar", "y.tar"):
        write_tar(tmp_path / name, {"a.jpg": b"x", "a.cls": b"0"})
    with pytest.raises(DataError, match=r"y\.tar occurs in .*x\.tar too"):
        list_tars(root := FolderStorage(tmp_path), find_shards(root, "{x,y}.tar"), classes=NONE)


def test_a_link_in_a_shard_is_refused(tmp_path):
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        member = tarfile.TarInfo("a.jpg")
        member.type, member.linkname = tarfile.SYMTYPE, "b.jpg"
        archive.addfile(member)
    with pytest.raises(DataError, match=r"a\.jpg is not a plain file"):
        list_tars(root := FolderStorage(tmp_path), find_shards(root, "x.tar"), classes=NONE)


@pytest.mark.parametrize(("kind", "compress"), [("gzip", gzip.compress), ("bzip2", bz2.compress)])
def test_a_compressed_shard_is_refused(kind, compress, as_tars):
    file = as_tars / "train-1.tar"
    file.write_bytes(compress(file.read_bytes()))
    with pytest.raises(DataError, match=rf"train-1\.tar is compressed \({kind}\)"):
        open_split(str(as_tars), "train")


def test_a_shard_cut_anywhere_is_refused(as_tars):
    file = as_tars / "train-1.tar"
    whole = file.read_bytes()
    end = len(whole.rstrip(b"\0"))
    for length in [0, 1, 511, 512, 1000, *range(1024, end, 512), end - 1]:
        file.write_bytes(whole[:length])
        with pytest.raises(DataError, match=r"train-1\.tar"):
            list_tars(root := FolderStorage(as_tars), find_shards(root, file.name), classes=PETS)


def test_a_damaged_header_is_refused(as_tars):
    file = as_tars / "train-1.tar"
    whole = file.read_bytes()
    with tarfile.open(file) as archive:
        starts = [member.offset for member in archive]
    for start in starts:
        damaged = np.frombuffer(whole, dtype=np.uint8).copy()
        damaged[start + 3] ^= 1
        file.write_bytes(damaged.tobytes())
        with pytest.raises(DataError, match=r"train-1\.tar"):
            list_tars(root := FolderStorage(as_tars), find_shards(root, file.name), classes=PETS)


def test_joined_shards_are_refused(as_tars):
    file = as_tars / "train-1.tar"
    file.write_bytes(file.read_bytes() + (as_tars / "train-2.tar").read_bytes())
    with pytest.raises(DataError, match="more data behind its end mark"):
        open_split(str(as_tars), "train")


def test_a_file_that_is_no_tar_is_refused(as_tars):
    (as_tars / "train-1.tar").write_bytes(b"<html>not found</html>" * 100)
    with pytest.raises(DataError, match="not an intact tar file"):
        open_split(str(as_tars), "train")
