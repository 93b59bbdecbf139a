"""Parquet files are copied to shards whole, whatever their columns are called, or refused before a byte is written."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cskd_pipeline.data import is_parquet, open_split, resolve_data
from cskd_pipeline.data.parquet import open_parquet, parquet_files
from cskd_pipeline.errors import DataError, UsageError

STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


@pytest.fixture
def images(picture):
    """Eight encoded images, one of them PNG, one WebP."""
    kinds = {1: "PNG", 2: "WEBP"}
    return [picture(number, kind=kinds.get(number, "JPEG")) for number in range(8)]


@pytest.fixture
def hub(tmp_path, images):
    """data/train-*.parquet and data/validation-*.parquet as the hub has them, with names of the classes."""
    info = {
        "info": {"features": {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": ["ant", "bee"]}}}
    }
    schema = pa.schema([("image", STRUCT), ("label", pa.int64())], metadata={b"huggingface": json.dumps(info)})
    folder = tmp_path / "hub"
    for name, rows in (
        ("train-00000-of-00002", [0, 1, 2]),
        ("train-00001-of-00002", [3, 4]),
        ("validation-0", [5, 6, 7]),
    ):
        table = pa.table(
            {
                "image": [{"bytes": images[row], "path": f"photo_{row}.JPEG"} for row in rows],
                "label": [row % 2 for row in rows],
            },
            schema=schema,
        )
        write(folder / "data" / f"{name}.parquet", table)
    return folder


def write(file, table):
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, file, row_group_size=2)


def packed(text, out, splits=None, **columns):
    data = open_parquet(str(text), **columns)
    splits = splits or list(data.files)
    data.require(splits, out)
    for split in splits:
        data.pack(split, out, shard_samples=2)
    return {split: samples(out, split) for split in splits}


def samples(folder, split):
    index = open_split(str(folder), split)
    return {index.key(row): (int(index.labels[row]), index.read(row)) for row in range(len(index))}


def test_files_of_the_hub_become_the_same_samples(hub, images, tmp_path):
    steps = []
    data = open_parquet(str(hub))
    data.pack("train", tmp_path / "tars", shard_samples=2, progress=lambda *step: steps.append(step))
    data.pack("val", tmp_path / "tars", shard_samples=2)
    assert steps == [(n, 5) for n in range(1, 6)]
    assert samples(tmp_path / "tars", "train") == {f"photo_{n}": (n % 2, images[n]) for n in range(5)}
    assert samples(tmp_path / "tars", "val") == {f"photo_{n}": (n % 2, images[n]) for n in range(5, 8)}
    assert open_split(str(tmp_path / "tars"), "train").classes == ("ant", "bee")
    assert sorted(file.name for file in (tmp_path / "tars").iterdir()) == [
        "classes.txt",
        *(f"train-{n:06d}.tar" for n in range(3)),
        "val-000000.tar",
        "val-000001.tar",
    ]
    packed(hub, tmp_path / "again")
    for file in (tmp_path / "again").iterdir():
        assert file.read_bytes() == (tmp_path / "tars" / file.name).read_bytes()


@pytest.mark.parametrize("form", ["text", "dictionary", "numbers", "large"])
def test_plain_columns_are_found(form, images, tmp_path):
    labels = [("bee", "ant")[n % 2] for n in range(8)]
    column = {
        "text": pa.array(labels),
        "dictionary": pa.array(labels).dictionary_encode(),
        "numbers": pa.array([1 - n % 2 for n in range(8)], pa.int8()),
        "large": pa.array(labels, pa.large_string()),
    }[form]
    kind = pa.large_binary() if form == "large" else pa.binary()
    keys = pa.array([f"a/{n}" for n in range(8)])
    write(tmp_path / "x" / "test.parquet", pa.table({"key": keys, "cls": column, "jpg": pa.array(images, kind)}))
    found = packed(tmp_path / "x" / "test.parquet", tmp_path / "out")
    assert found == {"test": {f"a/{n}": (1 - n % 2, images[n]) for n in range(8)}}
    assert open_split(str(tmp_path / "out"), "test").classes == (("0", "1") if form == "numbers" else ("ant", "bee"))


@pytest.mark.parametrize(
    "paths",
    [
        [None] * 8,
        ["same.jpg"] * 8,
        [f"a.b{n}.jpg" for n in range(8)],
        [f".{n}" for n in range(8)],
        [f"/x/{n}.jpg" for n in range(8)],
        [f"{n}/" for n in range(8)],
    ],
)
def test_rows_are_numbered_where_paths_are_no_keys(paths, images, tmp_path):
    table = pa.table(
        {
            "image": pa.array(
                [{"bytes": data, "path": path} for data, path in zip(images, paths, strict=True)], STRUCT
            ),
            "label": [0, 1] * 4,
        }
    )
    write(tmp_path / "x.parquet", table)
    assert list(packed(tmp_path / "x.parquet", tmp_path / "out")["train"].values()) != []
    assert sorted(samples(tmp_path / "out", "train")) == [f"{n:08d}" for n in range(8)]


def test_a_class_list_beside_the_files_comes_first(hub, images, tmp_path):
    (hub / "classes.txt").write_text("n01\tant\nn02\tbee\n")
    packed(hub, tmp_path / "out")
    assert open_split(str(tmp_path / "out"), "train").classes == ("n01", "n02")
    assert (tmp_path / "out" / "classes.txt").read_text() == "n01\tant\nn02\tbee\n"
    labels = pa.array(["bee", "ant", "ant", "bee"])
    write(tmp_path / "text" / "train.parquet", pa.table({"image": pa.array(images[:4]), "label": labels}))
    (tmp_path / "text" / "classes.txt").write_text("n02\tbee\nn01\tant\n")
    found = packed(tmp_path / "text", tmp_path / "out2")["train"]
    assert [found[f"{n:08d}"][0] for n in range(4)] == [0, 1, 1, 0]


def test_splits_go_by_words_in_names_of_files_and_folders(tmp_path):
    def empty(*names):
        for name in names:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(b"")

    def found(text):
        files = parquet_files(str(tmp_path / text))
        return {split: [str(file.relative_to(tmp_path)) for file in inside] for split, inside in files.items()}

    empty(
        "a/data/train-00000-of-00002.parquet",
        "a/data/train-00001-of-00002.parquet",
        "a/data/dev.parquet",
        "a/README.md",
    )
    assert found("a") == {
        "train": ["a/data/train-00000-of-00002.parquet", "a/data/train-00001-of-00002.parquet"],
        "val": ["a/data/dev.parquet"],
    }
    empty("b/default/train/0000.parquet", "b/default/test/0000.parquet", "b/default/unlabelled/0000.parquet")
    assert found("b") == {
        "": ["b/default/unlabelled/0000.parquet"],
        "train": ["b/default/train/0000.parquet"],
        "test": ["b/default/test/0000.parquet"],
    }
    assert found("b/default/test") == {"test": ["b/default/test/0000.parquet"]}
    empty("c/part-1.parquet", "c/part-0.parquet")
    assert found("c") == {"train": ["c/part-0.parquet", "c/part-1.parquet"]}
    assert found("c/part-*.parquet") == found("c")
    assert found("a/*/train-*.parquet") == {"train": found("a")["train"]}
    assert found("c/part-1.parquet") == {"train": ["c/part-1.parquet"]}
    empty("d/full/train-0.parquet", "d/small/train-0.parquet")
    with pytest.raises(DataError, match=r"parquet files of train in 2 folders: .*full, .*small; name one"):
        found("d")


def test_parquet_is_told_from_other_data(hub, as_tars, as_folder, tmp_path):
    assert all(is_parquet(str(text)) for text in (hub, hub / "data", hub / "data" / "*.parquet", "gone.parquet"))
    for folder in (as_tars, as_folder):
        (folder / "metadata.parquet").write_bytes(b"")
        assert not is_parquet(str(folder))
        assert open_split(str(folder), "train").digest
    (as_folder / "train" / "metadata.parquet").write_bytes(b"")
    assert open_split(str(as_folder / "train"), "train").digest


def test_parquet_as_data_is_refused_with_the_command_that_helps(hub, tmp_path, write_tar):
    for text in (
        hub / "data",
        hub / "data" / "train-*.parquet",
        hub / "data" / "validation-0.parquet",
        "s3://b/x.parquet",
    ):
        with pytest.raises(UsageError, match=r"once: cskd-pipeline pack --data .* --out FOLDER"):
            resolve_data(str(text))
    with pytest.raises(DataError, match=rf"once: cskd-pipeline pack --data {hub} --out FOLDER"):
        open_split(str(hub), "train")
    for split in ("train", "test"):
        (tmp_path / "x" / split).mkdir(parents=True)
        (hub / "data" / "validation-0.parquet").rename(hub / "data" / "validation-0.parquet")
        (tmp_path / "x" / split / "0000.parquet").write_bytes(b"")
    with pytest.raises(DataError, match="cskd-pipeline pack --data"):
        open_split(str(tmp_path / "x"), "train")


def test_without_pyarrow_it_is_said_what_to_install(hub, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(UsageError, match=r"needs the package pyarrow: pip install 'cskd-pipeline\[parquet\]'"):
        open_parquet(str(hub))


IMAGES = {"image": pa.array([b"\xff\xd8\xff"] * 3)}
REFUSED = {
    "no image column": (
        {"text": ["a"] * 3, "label": [0, 1, 0]},
        {},
        UsageError,
        r"holds the images is not clear.*text",
    ),
    "several image columns": (
        {"a": IMAGES["image"], "b": IMAGES["image"], "label": [0, 1, 0]},
        {},
        UsageError,
        r"images is not clear: it has a \(binary\), b \(binary\), label \(int64\); name it with --image-column",
    ),
    "several label columns": (
        {**IMAGES, "fine": [0, 1, 0], "coarse": [0, 0, 0]},
        {},
        UsageError,
        "holds the labels is not clear.*name it with --label-column",
    ),
    "no such column": ({**IMAGES, "label": [0, 1, 0]}, {"label": "lable"}, UsageError, "'lable'.*did you mean 'label'"),
    "labels of another kind": ({**IMAGES, "label": [0.0, 1.0, 0.5]}, {}, UsageError, "holds the labels is not clear"),
    "no labels": ({**IMAGES, "label": [-1, -1, -1]}, {}, DataError, "no image in .* has a label"),
    "some without": ({**IMAGES, "label": [0, None, 1]}, {}, DataError, "images without a label"),
    "a negative label": ({**IMAGES, "label": [0, -1, 1]}, {}, DataError, r"labels -1 for 2 classes \(0 to 1\)"),
    "labels that are ids": ({**IMAGES, "label": [7, 70000, 3]}, {}, DataError, "which are no labels from 0 on"),
    "no bytes": (
        {"image": pa.array([{"bytes": None, "path": "a.jpg"}] * 3, STRUCT), "label": [0, 1, 0]},
        {},
        DataError,
        "row 0 of train .* has no image in it",
    ),
    "no image": (
        {"image": pa.array([b"text"] * 3), "label": [0, 1, 0]},
        {},
        DataError,
        "'00000000' is no JPEG, PNG or",
    ),
    "another kind": ({"image": pa.array([b"GIF89a"] * 3), "label": [0, 1, 0]}, {}, DataError, r"WebP but \.gif"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_wrong_with_the_columns_is_named(case, tmp_path):
    columns, given, kind, expected = REFUSED[case]
    write(tmp_path / "x.parquet", pa.table(columns))
    with pytest.raises(kind, match=expected) as caught:
        packed(tmp_path / "x.parquet", tmp_path / "out", **given)
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "out").glob("*.tar"))


def test_what_is_wrong_with_the_files_is_named(hub, tmp_path, images):
    with pytest.raises(DataError, match="holds no parquet file"):
        open_parquet(str(tmp_path / "*.parquet"))
    with pytest.raises(UsageError, match=r"no split 'tset'; there is train, val"):
        packed(hub, tmp_path / "out", splits=["tset"])
    packed(hub, tmp_path / "out", splits=["val"])
    with pytest.raises(UsageError, match="holds shards of val already"):
        packed(hub, tmp_path / "out")
    file = hub / "data" / "train-00001-of-00002.parquet"
    whole = file.read_bytes()
    file.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(DataError, match=r"is no parquet file, or damaged .*git lfs pull"):
        open_parquet(str(hub))
    file.write_bytes(whole)
    write(hub / "data" / "train-00009.parquet", pa.table({"image": pa.array(images), "label": [0, 1] * 4}))
    with pytest.raises(DataError, match=r"train-00009\.parquet has other columns than"):
        open_parquet(str(hub))


def test_a_text_label_of_one_split_alone_is_a_class_too(tmp_path, images):
    for split, labels in (("train", ["b", "a"]), ("val", ["c", "a"])):
        write(tmp_path / "x" / f"{split}.parquet", pa.table({"image": pa.array(images[:2]), "label": labels}))
    packed(tmp_path / "x", tmp_path / "out", splits=["val"])
    packed(tmp_path / "x", tmp_path / "out", splits=["train"])
    assert open_split(str(tmp_path / "out"), "train").classes == ("a", "b", "c")
