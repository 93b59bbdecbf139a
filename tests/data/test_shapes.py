"""The built-in set is the same everywhere, balanced, and read like any other."""

import hashlib

import numpy as np
import pytest

from cskd_pipeline.data import load_manifest, open_split, write_shapes
from cskd_pipeline.data.sample_index import canonical_order, order_digest
from cskd_pipeline.data.shape_classes import CLUTTER, OUTLINES
from cskd_pipeline.data.shape_drawing import draw_shape
from cskd_pipeline.errors import UsageError


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return write_shapes(tmp_path_factory.mktemp("shapes") / "set", train=40, val=16)


def images(folder, split):
    index = open_split(str(folder), split)
    return {index.key(sample): index.read(sample) for sample in range(len(index))}


GOLDEN = "a9be0f85d7debf14ff0012ee0ef80393"


def test_drawn_pixels_never_change():
    drawn = b"".join(draw_shape(split, index)[0].tobytes() for split in ("train", "val") for index in range(32))
    assert hashlib.blake2b(drawn, digest_size=16).hexdigest() == GOLDEN


def test_an_image_depends_on_split_and_index_alone():
    backwards = [draw_shape("train", index)[0] for index in reversed(range(4))][::-1]
    for index, expected in enumerate(backwards):
        np.testing.assert_array_equal(draw_shape("train", index)[0], expected)
    assert draw_shape("val", 0)[0].tobytes() != draw_shape("train", 0)[0].tobytes()


def test_images_are_of_varying_size_and_balanced_classes():
    drawn = [draw_shape("train", index) for index in range(64)]
    sides = np.array([pixels.shape[:2] for pixels, _ in drawn])
    assert sides.min() >= 64
    assert sides.max() <= 96
    assert len(np.unique(sides)) > 16
    assert np.bincount([label for _, label in drawn]).tolist() == [4] * len(OUTLINES)


def test_outlines_lie_within_the_area_that_is_painted():
    u, v = np.meshgrid(*[np.linspace(-2, 2, 401, dtype=np.float32)] * 2)
    for outline in [*OUTLINES.values(), *CLUTTER]:
        inside = outline(u, v)
        assert inside.any()
        assert np.maximum(np.abs(u), np.abs(v))[inside].max() <= 1.02


def test_no_two_classes_have_nearly_the_same_outline():
    u, v = np.meshgrid(*[np.linspace(-1, 1, 101, dtype=np.float32)] * 2)
    masks = {name: outline(u, v) for name, outline in OUTLINES.items()}
    for first in masks:
        for second in masks:
            if first != second:
                overlap = (masks[first] & masks[second]).sum() / (masks[first] | masks[second]).sum()
                assert overlap < 0.85, (first, second)


def test_the_set_is_read_like_any_other(small):
    index = open_split(str(small), "train")
    assert len(index) == 40
    assert index.classes == tuple(OUTLINES)
    for sample in range(len(index)):
        number = int(index.key(sample).removeprefix("train-"))
        pixels, label = draw_shape("train", number)
        assert index.labels[sample] == label
        # JPEG loses a little of it, never the picture.
        assert np.abs(index.decode(sample).astype(int) - pixels).mean() < 12


def test_a_smaller_set_is_the_beginning_of_a_larger_one(small, tmp_path):
    fewer = images(write_shapes(tmp_path / "fewer", train=10, val=2), "train")
    assert fewer.items() <= images(small, "train").items()


def test_writing_again_gives_the_same_bytes_and_a_whole_set_is_reused(small, tmp_path):
    again = write_shapes(tmp_path / "again", train=40, val=16)
    assert {file.name: file.read_bytes() for file in again.iterdir()} == {
        file.name: file.read_bytes() for file in small.iterdir()
    }
    before = (again / "train-0000.tar").stat()
    write_shapes(again, train=40, val=16)
    assert (again / "train-0000.tar").stat() == before


def test_a_set_that_lost_a_shard_is_written_again(tmp_path):
    folder = write_shapes(tmp_path / "set", train=4, val=4)
    (folder / "val-0000.tar").unlink()
    write_shapes(folder, train=4, val=4)
    assert (folder / "val-0000.tar").is_file()


def test_it_is_not_written_over_anything_else(tmp_path):
    (tmp_path / "precious.txt").write_text("")
    with pytest.raises(UsageError, match="something other than shapes"):
        write_shapes(tmp_path, train=4, val=4)
    with pytest.raises(UsageError, match="train 0"):
        write_shapes(tmp_path / "new", train=0)


def test_the_name_opens_the_set_from_the_cache(tmp_path, own_cache):
    file = tmp_path / "few.yaml"
    file.write_text("name: shapes\nsplits: {train: {source: generated, count: 20}, val: {source: generated, count: 4}}")
    assert len(open_split(str(file), "val")) == 4
    assert [path.name for path in (own_cache / "data" / "shapes-v1").iterdir()] == ["train20-val4"]


def test_the_shipped_digests_follow_from_names_and_labels():
    for split, fields in load_manifest("shapes").splits.items():
        keys = [f"{split}-{number:06d}" for number in range(fields.count)]
        order = canonical_order(keys)
        labels = [int(row) % len(OUTLINES) for row in order]
        assert order_digest([keys[row] for row in order], labels) == fields.index_digest
