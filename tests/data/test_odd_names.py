"""Names of any kind are the same in any locale, or are refused; nothing is taken in or left out without a word."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cskd_pipeline.data import build_index, evaluation_split, open_split, resolve_data
from cskd_pipeline.data.pack import pack
from cskd_pipeline.errors import DataError, UsageError

NAMES = ["café", "with space", "q'uo\"te", "-dash", "per%cent %s {x} [a-b] *", "12", "n" * 200, "中", "e\u0301", " x"]
POSIX = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii:strict"}


@pytest.fixture
def odd(tmp_path, picture):
    """A folder whose own name, classes and files are odd."""
    for number, name in enumerate(NAMES):
        file = tmp_path / "set [1] {2} é" / "train" / name / f"{name[:150]} line\n{number}.jpg"
        file.parent.mkdir(parents=True)
        file.write_bytes(picture(number))
    return tmp_path / "set [1] {2} é"


def digest_in(locale, data, *more):
    code = "import sys; from cskd_pipeline_cli.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "index", "--json", "--data", os.fsencode(data), *more],
        env={**os.environ, **locale},
        capture_output=True,
        check=False,
    )
    assert b"Traceback" not in done.stderr
    assert done.returncode == 0, done.stderr
    return next(word for word in done.stdout.decode().split('"') if len(word) == 32)


def test_odd_names_are_the_same_in_a_posix_locale(odd, tmp_path):
    index = open_split(str(odd), "train")
    assert index.classes == tuple(sorted(NAMES))
    assert sorted(index.key(sample).partition("/")[0] for sample in range(len(index))) == sorted(NAMES)
    assert len(list(index.read_all(range(len(index))))) == len(NAMES)
    assert digest_in(POSIX, odd) == index.digest
    (odd / "train" / " x").rename(odd / "train" / "x")  # of a class list's lines, only what is not space counts
    packed = tmp_path / "pack [ed] é"
    expected = digest_in(POSIX, odd, "--pack", packed)
    assert open_split(str(packed), "train").digest == expected == digest_in(POSIX, packed)
    assert digest_in(POSIX, packed / "train-*.tar") == expected == digest_in({}, packed / "train-{000000..000000}.tar")
    assert open_split(str(packed), "train").classes == open_split(str(odd), "train").classes


def test_a_class_that_a_class_list_cannot_name_is_not_packed(odd, tmp_path):
    with pytest.raises(DataError, match="a class's name holds a line break"):
        pack(open_split(str(odd), "train"), tmp_path / "packed")


@pytest.mark.parametrize("name", [b"bad\xff", b"bad\xff/1.jpg", b"12/bad\xff.jpg"])
def test_a_name_that_is_no_utf_8_is_refused(name, odd):
    file = os.fsencode(odd) + b"/train/" + name
    os.makedirs(os.path.dirname(file) if name.endswith(b"jpg") else file, exist_ok=True)  # noqa: PTH103, PTH120
    if name.endswith(b"jpg"):
        Path(os.fsdecode(file)).write_bytes(b"x")
    with pytest.raises(DataError, match=r"bad\\udcff.*the name is not UTF-8; rename it"):
        open_split(str(odd), "train")


def test_a_root_whose_name_is_no_utf_8_has_a_name_that_can_be_printed(as_folder):
    index = open_split(str(as_folder.rename(as_folder.with_name("pets\udcff"))), "train")
    assert index.name == "pets\\xff"
    assert index.read(0)


def test_class_folders_that_differ_in_their_composition_alone_are_told_apart(tmp_path, picture):
    for split, name in (("train", "é"), ("val", "e\u0301")):
        (tmp_path / split / name).mkdir(parents=True)
        (tmp_path / split / name / "1.jpg").write_bytes(picture(1))
    with pytest.raises(DataError, match="composed of other Unicode characters"):
        open_split(str(tmp_path), "val")


WORDS = [("training", "validation"), ("Train", "Val"), ("TRAIN", "VALID"), ("train", "eval"), ("Training", "Test")]


@pytest.mark.parametrize("words", WORDS)
@pytest.mark.parametrize("layout", ["folders", "shards", "pattern"])
def test_words_for_a_split_name_it(words, layout, tmp_path, write_tar, picture):
    for word in words:
        if layout == "folders":
            (tmp_path / word / "a").mkdir(parents=True)
            (tmp_path / word / "a" / "1.jpg").write_bytes(picture(1))
        else:
            name = f"{word}-0.tar" if layout == "shards" else f"x-{word.lower()}-0.tar"
            write_tar(tmp_path / name, {"1.jpg": picture(1), "1.cls": b"0"})
    source = resolve_data(str(tmp_path / "x-{split}-*.tar" if layout == "pattern" else tmp_path))
    assert source.splits == ("train", "test" if words[1] == "Test" else "val")
    for split in source.splits:
        assert len(build_index(source, split)) == 1
    assert evaluation_split(source) == source.splits[1]


@pytest.mark.parametrize("names", [("train/a/", "val/a/", "validation/a/"), ("train-0.tar", "train_0.tar")])
def test_two_names_for_one_split_are_refused(names, tmp_path):
    for name in names:
        (tmp_path / name).mkdir(parents=True) if name.endswith("/") else (tmp_path / name).touch()
    with pytest.raises(UsageError, match=r"and .* which both stand for the split"):
        resolve_data(str(tmp_path))


def test_a_class_may_be_called_as_a_split_is(tmp_path, picture):
    for name in ("bus", "car", "train"):
        (tmp_path / "vehicles" / name).mkdir(parents=True)
        (tmp_path / "vehicles" / name / "1.jpg").write_bytes(picture(1))
    assert open_split(str(tmp_path / "vehicles"), "train").classes == ("bus", "car", "train")


@pytest.mark.parametrize("archive", ["ILSVRC2012_img_val.tar", "train.tar", "imagenette2.tgz", "val.zip"])
def test_archives_beside_folders_are_left_out_and_named(archive, as_folder):
    before = open_split(str(as_folder), "train").digest
    (as_folder / archive).write_bytes(b"")
    index = build_index(resolve_data(str(as_folder)), "train")
    assert index.digest == before
    assert index.left_out == f"1 ({archive})"


def test_archives_beside_classes_are_left_out_and_named(as_folder):
    (as_folder / "train" / "flowers.tar").write_bytes(b"")
    assert build_index(resolve_data(str(as_folder / "train")), "train").left_out == "1 (flowers.tar)"


def test_what_systems_leave_is_no_class_and_no_image(as_folder, picture):
    before = open_split(str(as_folder), "train").digest
    rest = [
        "a/.DS_Store",
        "a/._1.jpg",
        "a/Thumbs.db",
        "a/notes.txt",
        "b/.ipynb_checkpoints/1.jpg",
        "b/@eaDir/1.jpg/S.jpg",
    ]
    for name in [*rest, "__MACOSX/a/._1.jpg", "@eaDir/1.jpg", "list.txt"]:
        file = as_folder / "train" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(picture(1) if name.endswith(".jpg") else b"text")
    index = open_split(str(as_folder), "train")
    assert (index.digest, index.classes) == (before, ("a", "b"))
    assert index.left_out == "9 (@eaDir, __MACOSX, list.txt, a/.DS_Store, a/._1.jpg, ...)"


JPEG, TEXT = "a JPEG", "text"
LIKE_IMAGES = {
    "a/1.jfif": (JPEG, r"1\.jfif is an image by its content, not by its name; call it \.jpg"),
    "a/1.jpe": (JPEG, "call it .jpg"),
    "a/nosuffix": (JPEG, "call it .jpg"),
    "a/1.JPG.txt": (JPEG, "call it .jpg"),
    "a/1.pgm": (TEXT, r"\.pgm images are not read; convert it to PNG"),
    "a/1.jxl": (TEXT, r"\.jxl images are not read"),
    "beside.jpg": (JPEG, r"beside\.jpg is an image of no class"),
}


@pytest.mark.parametrize("name", LIKE_IMAGES)
def test_what_looks_like_an_image_is_never_left_out(name, as_folder, picture):
    kind, message = LIKE_IMAGES[name]
    (as_folder / "train" / name).write_bytes(picture(1) if kind is JPEG else b"text")
    with pytest.raises(DataError, match=message):
        open_split(str(as_folder), "train")


@pytest.mark.parametrize("target", ["nowhere", "../b"])
def test_links_that_would_be_left_out_are_refused(target, as_folder):
    (as_folder / "train" / "a" / "link").symlink_to(target)
    with pytest.raises(DataError, match="link is a link to"):
        open_split(str(as_folder), "train")


def test_a_folder_may_be_called_as_a_manifest_is(as_folder):
    assert len(open_split(str(as_folder.rename(as_folder.with_name("pets.yaml"))), "train")) == 10
