"""The images that labels belong to are found by their digest, wherever they lie; or it is said where they are not."""

import os
import re
import shutil
import subprocess
import sys

import pytest

from cskd_pipeline.data import (
    build_index,
    data_source,
    evaluation_split,
    find_split,
    open_split,
    pack,
    read_manifest,
    resolve_data,
)
from cskd_pipeline.errors import DataError


def found(digest, **settings):
    return find_split(**{"digest": digest, "name": "pets", "split": "train", **settings})


def test_a_split_that_was_opened_once_is_found_whatever_it_was_called(as_folder, as_tars):
    for data in (as_folder, as_tars):
        other = data.rename(data.with_name("cats"))
        digest = open_split(str(other), "train").digest
        index = found(digest)
        assert (index.digest, index.name, index.read(3)) == (digest, "cats", open_split(str(other), "train").read(3))
        shutil.rmtree(other)


def test_of_several_places_one_that_is_there_is_taken(as_folder, as_tars, tmp_path):
    digest = open_split(str(as_folder), "train").digest
    pack(open_split(str(as_folder), "train"), tmp_path / "packed")
    assert open_split(str(tmp_path / "packed"), "train").digest == digest
    shutil.rmtree(tmp_path / "packed")
    assert found(digest).root.address == str(as_folder)


def test_a_copy_beside_another_list_of_classes_is_another_data_set(as_tars, tmp_path):
    index = open_split(str(as_tars), "train")
    copy = shutil.copytree(as_tars, tmp_path / "copy")
    (copy / "classes.txt").write_text("".join(f"class {label}\n" for label in range(len(index.classes) + 1)))
    assert open_split(str(copy), "train").digest == index.digest
    assert found(index.digest).root.address == str(copy)
    assert found(index.digest, classes=len(index.classes)).root.address == str(as_tars)
    with pytest.raises(DataError, match=rf"{as_tars} has {len(index.classes)} classes instead of 70"):
        found(index.digest, classes=70)


def test_data_that_moved_is_said_to_be_where_it_was_not(as_tars):
    digest = open_split(str(as_tars), "train").digest
    as_tars.rename(as_tars.with_name("elsewhere"))
    with pytest.raises(DataError, match=rf"pets train, digest {digest}\) are not found; say where.*--data.*{as_tars}"):
        found(digest)
    assert open_split(str(as_tars.with_name("elsewhere")), "train").digest == digest
    assert found(digest).name == "elsewhere"


def test_a_place_is_named_once_however_it_was_spelled(as_tars):
    around, link = as_tars / ".." / as_tars.name, as_tars.with_name("link")
    link.symlink_to(as_tars)
    digest = open_split(str(as_tars), "train").digest
    assert resolve_data(str(around)).root.address == resolve_data(f"{around}/train-*.tar").root.address == str(as_tars)
    assert open_split(str(around), "train").folder == open_split(str(as_tars), "train").folder
    assert open_split(str(link), "train").folder != open_split(str(as_tars), "train").folder
    as_tars.rename(as_tars.with_name("elsewhere"))
    with pytest.raises(DataError) as caught:
        found(digest)
    assert str(caught.value).count("train-") == 1


def test_data_that_changed_is_not_taken(as_folder, picture):
    digest = open_split(str(as_folder), "train").digest
    (as_folder / "train" / "a" / "new.png").write_bytes(picture(1, kind="PNG"))
    with pytest.raises(DataError, match="has changed since"):
        found(digest)


def test_a_known_set_is_found_by_its_name_and_compared(as_tars, tmp_path, monkeypatch):
    file = tmp_path / "known.yaml"
    file.write_text("name: known\nsplits: {train: {source: tar, path: 'train-*.tar'}}")
    for module in ("opening", "source"):
        monkeypatch.setattr(f"cskd_pipeline.data.{module}.manifest_names", lambda: ["known"])
    monkeypatch.setattr("cskd_pipeline.data.source.load_manifest", lambda name: read_manifest(file)[0])
    digest = build_index(resolve_data(str(as_tars)), "train", out=tmp_path / "index").digest
    with pytest.raises(DataError, match=r"\(known train, digest .*--data.*where does 'known' lie\?"):
        found(digest, name="known")
    assert found(digest, name="known", root=as_tars).digest == digest
    monkeypatch.setenv("CSKD_DATA_ROOT", str(as_tars))
    with pytest.raises(DataError, match=f"known train in {as_tars} has the digest {digest}"):
        found("0" * 32, name="known")


def test_what_was_never_opened_is_asked_for(own_cache):
    with pytest.raises(DataError, match=re.escape(f"--data (no index in {own_cache / 'index'} has this digest)")):
        found("0" * 32)


def test_a_split_leads_to_the_others_of_its_set(as_folder, picture):
    (as_folder / "validation" / "a").mkdir(parents=True)
    (as_folder / "validation" / "b").mkdir()
    for label in "ab":
        (as_folder / "validation" / label / "1.png").write_bytes(picture(1, kind="PNG"))
    source = data_source(found(open_split(str(as_folder), "train").digest))
    assert evaluation_split(source) == "val"
    assert len(open_split(source, "val")) == 2


def test_finding_reads_little_of_the_other_indices_and_brings_no_torch(as_tars, own_cache):
    index = open_split(str(as_tars), "train")
    header = (index.folder / "index.json").read_text()
    for number in range(300):
        other = own_cache / "index" / f"other-{number}"
        other.mkdir()
        (other / "index.json").write_text(header.replace(index.digest, f"{number:032d}"))
    code = f"""import sys
from cskd_pipeline.data import find_split
assert find_split(digest={index.digest!r}, name="x", split="train").digest == {index.digest!r}
sys.exit("torch" in sys.modules)"""
    assert subprocess.run([sys.executable, "-c", code], env=dict(os.environ), check=False).returncode == 0
