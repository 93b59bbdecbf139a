"""Shards in object storage are found as those of a folder are; what cannot be read there is refused at once."""

import random

import pytest
from braceexpand import braceexpand

from cskd_pipeline.data import open_split, resolve_data
from cskd_pipeline.data.shards import find_shards
from cskd_pipeline.errors import DataError, UsageError
from cskd_pipeline.storage import FolderStorage, open_storage


@pytest.fixture(autouse=True)
def no_root(monkeypatch):
    monkeypatch.delenv("CSKD_DATA_ROOT", raising=False)


@pytest.fixture
def put(s3):
    """put(*names) -> the address of a folder that holds empty files of these names."""

    def write(*names):
        for name in names:
            open_storage(f"{s3}/sets/pets").write(name, b"")
        return f"{s3}/sets/pets"

    return write


class Elsewhere:
    """What a folder holds, but not as one."""

    def __init__(self, folder):
        inner = FolderStorage(folder)
        self.address, self.at, self.files, self.folders = inner.address, inner.at, inner.files, inner.folders


PATTERNS = [
    "*.tar",
    "train-*.tar",
    "train-?.tar",
    "train-[02].tar",
    "train-{0..2}.tar",
    "{val,train}-*.tar",
    "part-*/x-*.tar",
    "part-{b,a}/x-{0..1}.tar",
    "part-a/x-0.tar",
    "p*",
]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_pattern_names_the_same_files_as_in_a_folder(pattern, tmp_path):
    names = [f"train-{number}.tar" for number in range(3)] + ["val-0.tar", "classes.txt", "train-10.tar"]
    names += [f"part-{letter}/x-{number}.tar" for letter in "ab" for number in range(2)]
    random.Random(0).shuffle(names)
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    expected = [file for each in braceexpand(pattern) for file in sorted(tmp_path.glob(each)) if file.is_file()]
    for root in (FolderStorage(tmp_path), Elsewhere(tmp_path)):
        if not expected:
            with pytest.raises(DataError, match="no file under"):
                find_shards(root, pattern)
        else:
            found = [file.name for file in find_shards(root, pattern)]
            assert found == [str(file.relative_to(tmp_path)) for file in expected]


@pytest.mark.parametrize("pattern", ["**/x-*.tar", "../{name}/part-?/x-1.tar", "{root}/*/x-0.tar"])
def test_a_pattern_in_a_folder_may_go_down_up_or_anywhere(pattern, tmp_path):
    for letter in "ab":
        for number in range(2):
            (tmp_path / f"part-{letter}").mkdir(exist_ok=True)
            (tmp_path / f"part-{letter}" / f"x-{number}.tar").write_bytes(b"")
    text = pattern.replace("{name}", tmp_path.name).replace("{root}", str(tmp_path))
    assert len(find_shards(FolderStorage(tmp_path), text)) == (4 if "**" in pattern else 2)


def test_a_shard_that_is_a_link_to_nothing_is_named(as_tars):
    (as_tars / "train-3.tar").symlink_to("nowhere")
    with pytest.raises(DataError, match=r"train-3\.tar cannot be read: it is no plain file, or a link"):
        open_split(str(as_tars), "train")


def test_a_folder_of_shards_is_understood(put):
    source = resolve_data(put("train-0.tar", "train-1.tar", "test-0.tar", "classes.txt", "other/train-7.tar") + "/")
    assert (source.manifest.name, source.splits) == ("pets", ("train", "test"))
    assert [file.name for file in find_shards(source.root, source.split("train").path)] == [
        "train-0.tar",
        "train-1.tar",
    ]


def test_a_pattern_has_the_splits_that_exist(put):
    address = put("train-000.tar", "train-001.tar", "val-000.tar", "val-001.tar")
    source = resolve_data(f"{address}/{{split}}-{{000..001}}.tar")
    assert (source.manifest.name, source.splits, source.root.address) == ("pets", ("train", "val"), address)
    assert resolve_data(f"{address}/*-000.tar").unsplit


@pytest.mark.parametrize("by", ["root", "argument", "variable"])
def test_a_manifest_may_have_its_root_there(by, put, tmp_path, monkeypatch):
    address = put("x-0.tar")
    if by == "variable":
        monkeypatch.setattr("cskd_pipeline.data.source.manifest_names", lambda: ["pets"])
        monkeypatch.setattr("cskd_pipeline.data.source.load_manifest", lambda name: known)
    file = tmp_path / "pets.yaml"
    root = f"root: {address}\n" if by == "root" else ""
    file.write_text(f"name: pets\n{root}splits: {{train: {{source: tar, path: 'x-*.tar'}}}}")
    if by == "variable":
        known = resolve_data(str(file)).manifest
        monkeypatch.setenv("CSKD_DATA_ROOT", address.rpartition("/")[0])
        source = resolve_data("pets")
    else:
        source = resolve_data(str(file), root=address if by == "argument" else None)
    assert source.root.address == address
    assert len(find_shards(source.root, source.split("train").path)) == 1


def test_images_in_class_folders_are_to_be_packed(put, tmp_path):
    address = put("train/cat/1.jpg", "train/dog/1.jpg")
    file = tmp_path / "pets.yaml"
    file.write_text(f"name: pets\nroot: {address}\nsplits: {{train: {{source: folder, path: train}}}}")
    for use in (
        lambda: resolve_data(address),
        lambda: resolve_data(str(file)),
        lambda: resolve_data("imagenette", root=address),
    ):
        with pytest.raises(UsageError, match=r"only tar shards; pack them \(cskd-pipeline pack\), upload"):
            use()


REFUSED = {
    "nothing there": ("s3://{bucket}/none", DataError, "holds no data set: expected shards"),
    "no such bucket": ("s3://no-such-bucket/pets", DataError, "there is no such bucket"),
    "no such bucket for a pattern": ("s3://no-such-bucket/{split}-*.tar", DataError, "there is no such bucket"),
    "tars of other names": ("{pets}", UsageError, r"none is called <split>-\*\.tar.*name them by a pattern"),
    "a pattern that matches nothing": ("{pets}/train-*.tar", DataError, r"no file under s3://.*/sets/pets matches"),
    "a split pattern that matches nothing": ("{pets}/{split}-*.tar", DataError, "matches no file for split train"),
    "a shard that is missing": ("{pets}/part-{0..2}.tar", DataError, r"s3://.*/part-1\.tar does not exist, but"),
    "braces that do not balance": ("{pets}/part-{0..2.tar", UsageError, "balance"),
    "any depth": ("{pets}/**/part-*.tar", UsageError, r"neither \.\. nor \*\*"),
    "no bucket": ("s3://*.tar", UsageError, "names no bucket"),
    "a manifest": ("{pets}/pets.yaml", UsageError, "manifests are read from a disk"),
    "another kind": ("azure://container/x-*.tar", UsageError, "no address of an object store"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_read_is_refused_in_one_line(case, put, s3):
    text, kind, message = REFUSED[case]
    address = put("part-0.tar", "part-2.tar")
    with pytest.raises(kind, match=message) as caught:
        resolve_data(text.replace("{bucket}", s3.removeprefix("s3://")).replace("{pets}", address))
    assert "\n" not in str(caught.value)


def test_an_address_as_the_path_of_a_split_is_refused(tmp_path):
    with pytest.raises(UsageError, match="path of a split is relative to the root"):
        find_shards(FolderStorage(tmp_path), "s3://bucket/x-*.tar")


def test_an_address_without_obstore_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "obstore.store", None)
    with pytest.raises(UsageError, match=r"needs the package obstore: pip install 'cskd-pipeline\[objects\]'"):
        resolve_data("s3://bucket/pets")
