"""The shipped manifests say what the sets are, and a manifest of one's own is checked as it is read."""

import importlib.util
from pathlib import Path

import pytest

from cskd_pipeline.data import Manifest, Split, load_manifest, manifest_names, read_manifest
from cskd_pipeline.errors import UsageError

SIZES = {
    "cifar10": (10, {"train": 50_000, "test": 10_000}),
    "imagenet-1k": (1000, {"train": 1_281_167, "val": 50_000}),
    "imagenette": (10, {"train": 9_469, "val": 3_925}),
    "shapes": (16, {"train": 6_000, "val": 1_200}),
}


def test_every_shipped_manifest_states_its_size():
    found = {name: load_manifest(name) for name in manifest_names()}
    assert {
        name: (len(manifest.classes), {split: fields.count for split, fields in manifest.splits.items()})
        for name, manifest in found.items()
    } == SIZES


@pytest.mark.parametrize("name", SIZES)
def test_a_shipped_manifest_says_what_it_is_and_how_to_get_it(name):
    manifest = load_manifest(name)
    assert manifest.name == name
    assert manifest.description
    assert manifest.notes


@pytest.mark.parametrize("name", SIZES)
def test_a_manifest_round_trips_through_json(name):
    manifest = load_manifest(name)
    assert Manifest.from_json(manifest.to_json()) == manifest


def test_imagenet_classes_are_timms_in_timms_order():
    # Found, not imported: timm brings torch with it.
    package = Path(importlib.util.find_spec("timm").origin).parent
    assert list(load_manifest("imagenet-1k").classes) == (
        (package / "data" / "_info" / "imagenet_synsets.txt").read_text().split()
    )


def test_imagenette_classes_are_imagenet_classes_in_order():
    imagenet = load_manifest("imagenet-1k").classes
    labels = [imagenet.index(name) for name in load_manifest("imagenette").classes]
    assert labels == [0, 217, 482, 491, 497, 566, 569, 571, 574, 701]


def test_shapes_classes_are_those_that_are_drawn():
    from cskd_pipeline.data.shape_classes import OUTLINES

    assert load_manifest("shapes").classes == tuple(OUTLINES)


def test_a_misspelt_name_is_answered_with_the_nearest():
    with pytest.raises(UsageError, match="did you mean 'imagenette'"):
        load_manifest("imagenete")


WRONG = {
    "unknown field": ("name: x\nclases: [a]\nsplits: {train: {source: tar}}", "did you mean 'classes'"),
    "unknown split field": ("name: x\nsplits: {train: {source: tar, paht: a}}", "did you mean 'path'"),
    "unknown source": ("name: x\nsplits: {train: {source: tra}}", "did you mean 'tar'"),
    "no name": ("splits: {train: {source: tar}}", "needs name"),
    "no splits": ("name: x", "splits"),
    "empty splits": ("name: x\nsplits: {}", "names no split"),
    "class read as a number": ("name: x\nclasses: [0, 1]\nsplits: {train: {source: tar}}", "put it in quotes"),
    "class read as a truth value": ("name: x\nclasses: [no]\nsplits: {train: {source: tar}}", "put it in quotes"),
    "class twice": ("name: x\nclasses: [a, a]\nsplits: {train: {source: tar}}", "lists class 'a' twice"),
    "classes as text": ("name: x\nclasses: a b\nsplits: {train: {source: tar}}", "must be a list"),
    "count as text": ("name: x\nsplits: {train: {source: tar, count: many}}", "whole number"),
    "count of zero": ("name: x\nsplits: {train: {source: tar, count: 0}}", "at least 1"),
    "not a mapping": ("[a, b]", "must be a mapping"),
    "not YAML": ("a: [", "not valid YAML"),
    "classes given twice": ("name: x\nclasses: [a]\nclasses_file: b\nsplits: {}", "keep one"),
    "classes file missing": ("name: x\nclasses_file: b.txt\nsplits: {}", "b.txt"),
    "list not named": ("name: x\nsplits: {train: {source: list}}", "names it, such as `list: val.txt`"),
    "list of tars": ("name: x\nsplits: {train: {source: tar, list: a.txt}}", "write `source: list`"),
    "other names of others": (
        "name: x\nclasses: [a]\nother_names: [[b], [c]]\nsplits: {t: {source: tar}}",
        "2 classes",
    ),
    "other names as text": ("name: x\nclasses: [a]\nother_names: [b]\nsplits: {t: {source: tar}}", "lists of text"),
    "partial as text": ("name: x\npartial: some\nsplits: {train: {source: tar}}", "true or false"),
    "root not text": ("name: x\nroot: 3\nsplits: {train: {source: tar}}", "root"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_manifest_is_refused_in_one_line_with_its_file(case, tmp_path):
    text, expected = WRONG[case]
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    with pytest.raises(UsageError, match=expected) as caught:
        read_manifest(file)
    assert "mine.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_manifest_of_ones_own_is_read(tmp_path):
    (tmp_path / "names.txt").write_text("cat\tn1\ndog\tn2\n")
    file = tmp_path / "mine.yaml"
    file.write_text(
        "name: mine\nroot: data\nclasses_file: names.txt\nsplits: {train: {source: tar, path: 'a-*.tar', count: 3}}"
    )
    manifest, root = read_manifest(file)
    assert root == "data"
    assert manifest == Manifest(
        "mine",
        classes=("cat", "dog"),
        other_names=(("n1",), ("n2",)),
        splits={"train": Split("tar", "a-*.tar", 3)},
    )
