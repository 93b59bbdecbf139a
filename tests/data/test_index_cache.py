"""A cached index is reused, rebuilt when it must be, and never half there."""

import json
import multiprocessing
import os
import shutil

import pytest

from cskd_pipeline.data import build_index, open_index, open_split, resolve_data
from cskd_pipeline.errors import DataError, RetryError, UsageError


def stamps(folder):
    return {file.name: file.stat().st_mtime_ns for file in folder.iterdir()}


def test_an_index_is_built_once(as_tars, own_cache):
    first = open_split(str(as_tars), "train")
    before = stamps(first.folder)
    again = open_split(str(as_tars), "train")
    assert again.folder == first.folder
    assert stamps(first.folder) == before
    assert first.folder.parent == own_cache / "index"


def test_a_relative_path_finds_the_same_index(as_tars, monkeypatch):
    first = open_split(str(as_tars), "train")
    monkeypatch.chdir(as_tars.parent)
    assert open_split("pets", "train").folder == first.folder


@pytest.mark.parametrize("column", ["labels.npy", "keys.npy", "index.json"])
@pytest.mark.parametrize("harm", ["flip", "cut", "remove"])
def test_a_damaged_cached_index_is_built_again(column, harm, as_tars):
    good = open_split(str(as_tars), "train")
    file = good.folder / column
    intact = file.read_bytes()
    if harm == "flip":
        file.write_bytes(intact[:-20] + bytes([intact[-20] ^ 1]) + intact[-19:])
    elif harm == "cut":
        file.write_bytes(intact[: len(intact) // 2])
    else:
        file.unlink()
    assert open_split(str(as_tars), "train").digest == good.digest
    assert file.read_bytes() == intact


def test_new_data_gets_a_new_index(as_tars, write_tar, picture):
    assert len(open_split(str(as_tars), "train")) == 10
    write_tar(as_tars / "train-9.tar", {"new.png": picture(99, kind="PNG"), "new.cls": b"1"})
    assert len(open_split(str(as_tars), "train")) == 11


def test_a_new_image_in_a_class_folder_is_seen(as_folder, picture):
    assert len(open_split(str(as_folder), "train")) == 10
    (as_folder / "train" / "a" / "new.png").write_bytes(picture(99, kind="PNG"))
    assert len(open_split(str(as_folder), "train")) == 11


def test_new_class_names_are_seen(as_tars):
    open_split(str(as_tars), "train")
    (as_tars / "classes.txt").write_text("cat\ndog\n")
    assert open_split(str(as_tars), "train").classes == ("cat", "dog")


def test_an_index_that_was_named_is_opened_by_its_folder(as_tars, tmp_path):
    built = build_index(resolve_data(str(as_tars)), "train", out=tmp_path / "mine")
    assert open_split(str(tmp_path / "mine"), "train").digest == built.digest
    with pytest.raises(UsageError, match="is the index of split 'train', not of 'val'"):
        open_split(str(tmp_path / "mine"), "val")


@pytest.mark.parametrize("harm", ["older than the data", "damaged", "missing", "version"])
def test_an_index_that_was_named_is_never_rebuilt(harm, as_tars, tmp_path):
    out = tmp_path / "mine"
    build_index(resolve_data(str(as_tars)), "train", out=out)
    if harm == "older than the data":
        os.utime(as_tars / "train-1.tar", (1, 1))
    elif harm == "damaged":
        (out / "heights.npy").write_bytes(b"")
    elif harm == "missing":
        shutil.rmtree(out)
    else:
        header = json.loads((out / "index.json").read_text())
        (out / "index.json").write_text(json.dumps({**header, "format_version": 2}))
    with pytest.raises(DataError, match=harm):
        open_index(out)


def test_building_over_an_index_replaces_it_and_over_anything_else_refuses(as_tars, tmp_path, write_tar, picture):
    out = tmp_path / "mine"
    old = build_index(resolve_data(str(as_tars)), "train", out=out)
    write_tar(as_tars / "train-9.tar", {"new.png": picture(99, kind="PNG"), "new.cls": b"1"})
    assert len(build_index(resolve_data(str(as_tars)), "train", out=out)) == 11
    assert len(old) == 10, "a mapped index outlives its files"
    assert old.labels.sum() == 5
    with pytest.raises(UsageError, match="is no index"):
        build_index(resolve_data(str(as_tars)), "train", out=as_tars)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def _open(data):
    return open_split(data, "train").digest


def test_builders_at_the_same_time_do_not_hurt_one_another(as_tars, own_cache):
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        digests = pool.map(_open, [str(as_tars)] * 8, chunksize=1)
    assert len(set(digests)) == 1
    assert len(list((own_cache / "index").iterdir())) == 1, "no scratch folder is left"


def test_a_failed_build_leaves_nothing(as_tars, own_cache, write_tar):
    write_tar(as_tars / "train-9.tar", {"bad.jpg": b"no image", "bad.cls": b"0"})
    with pytest.raises(DataError):
        open_split(str(as_tars), "train")
    assert list((own_cache / "index").iterdir()) == []


def test_a_cache_that_cannot_be_written_says_so(as_tars, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CSKD_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(RetryError, match="set CSKD_CACHE"):
        open_split(str(as_tars), "train")


def test_the_default_cache_is_under_the_home_folder(as_tars, tmp_path, monkeypatch):
    monkeypatch.delenv("CSKD_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    index = open_split(str(as_tars), "train")
    assert index.folder.is_relative_to(tmp_path / "home" / ".cache" / "cskd-pipeline")
