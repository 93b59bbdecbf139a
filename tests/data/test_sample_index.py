"""An index gives every sample of a split, once, in an order that only the keys decide."""

import hashlib
import io
import multiprocessing
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cskd_pipeline.data import build_index, open_split, resolve_data
from cskd_pipeline.errors import DataError, MismatchError


@pytest.fixture(params=["as_folder", "as_tars"])
def index(request):
    return open_split(str(request.getfixturevalue(request.param)), "train")


def slow_order(samples):
    return sorted(samples, key=lambda key: (hashlib.blake2b(key.encode(), digest_size=16).hexdigest(), key))


def test_the_order_is_by_hash_of_the_key(index, samples):
    assert [index.key(sample) for sample in range(len(index))] == slow_order(samples)


def test_every_column_tells_the_truth_about_its_sample(index, samples):
    assert (index.name, index.split, index.classes) == ("pets", "train", ("a", "b"))
    assert index.class_counts().tolist() == [5, 5]
    for sample, key in enumerate(slow_order(samples)):
        label, data = samples[key]
        expected = np.asarray(Image.open(io.BytesIO(data)))
        assert index.labels[sample] == label
        assert index.read(sample) == data
        assert Path(index.file(sample)).read_bytes()[index.offsets[sample] :][: index.lengths[sample]] == data
        assert (index.heights[sample], index.widths[sample]) == expected.shape[:2]
        np.testing.assert_array_equal(index.decode(sample), expected)


def test_the_digest_is_of_keys_and_labels_in_order(index, samples):
    rows = "".join(f"{key}\0{samples[key][0]}\n" for key in slow_order(samples))
    assert index.digest == hashlib.blake2b(rows.encode(), digest_size=16).hexdigest()


def test_the_digest_changes_with_a_label(as_tars, samples, write_tar):
    before = open_split(str(as_tars), "train").digest
    members = {}
    for number, (key, (label, data)) in enumerate(samples.items()):
        members |= {f"{key}.jpg": data, f"{key}.cls": str(1 - label if number == 3 else label).encode()}
    one = write_tar(as_tars / "other.tar", members)
    assert open_split(str(one), "train").digest != before


def test_columns_are_read_only_maps(index):
    assert isinstance(index.labels, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        index.labels[0] = 1


def _digest_of_images(index):
    return hashlib.sha256(b"".join(index.read(sample) for sample in range(len(index)))).hexdigest()


def test_an_index_travels_to_other_processes(index):
    expected = _digest_of_images(index)  # opens files here first, so that they could be shared by mistake
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.map(_digest_of_images, [index]) == [expected]


def test_a_pickled_index_is_a_reference_not_a_copy(index):
    assert len(pickle.dumps(index)) < 500


def test_a_travelling_index_that_was_replaced_is_refused(as_tars, tmp_path, write_tar, picture):
    out = tmp_path / "index"
    sent = pickle.dumps(build_index(resolve_data(str(as_tars)), "train", out=out))
    write_tar(as_tars / "train-3.tar", {"new.png": picture(99, kind="PNG"), "new.cls": b"1"})
    build_index(resolve_data(str(as_tars)), "train", out=out)
    with pytest.raises(DataError, match="replaced while it was in use"):
        pickle.loads(sent)


def test_the_digest_that_a_manifest_demands_is_compared(as_tars, tmp_path):
    digest = open_split(str(as_tars), "train").digest
    file = tmp_path / "mine.yaml"
    text = "name: mine\nroot: tars/pets\nsplits: {{train: {{source: tar, path: 'train-*.tar', index_digest: '{}'}}}}"
    file.write_text(text.format(digest))
    assert open_split(str(file), "train").digest == digest
    file.write_text(text.format("0" * 32))
    with pytest.raises(MismatchError, match=f"{digest}.*{'0' * 32}"):
        open_split(str(file), "train")


def test_a_count_that_differs_from_the_manifest_is_an_error(as_folder, tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("name: mine\nroot: folders/pets\nsplits: {train: {source: folder, path: train, count: 11}}")
    with pytest.raises(DataError, match="holds 10 images, the manifest says 11"):
        open_split(str(file), "train")


def test_progress_ends_at_the_total(as_folder):
    calls = []
    open_split(str(as_folder), "train", progress=lambda done, total: calls.append((done, total)))
    assert calls[-1] == (10, 10)


@pytest.mark.parametrize("layout", ["as_folder", "as_tars"])
def test_a_file_that_vanished_is_named(layout, request):
    index = open_split(str(request.getfixturevalue(layout)), "train")
    Path(index.file(4)).unlink()
    with pytest.raises(DataError, match="is gone; the data changed after it was indexed") as caught:
        index.read(4)
    assert index.key(4) in str(caught.value)
    assert str(index.file(4)) in str(caught.value)


@pytest.mark.parametrize("layout", ["as_folder", "as_tars"])
def test_a_file_that_became_shorter_is_named(layout, request):
    index = open_split(str(request.getfixturevalue(layout)), "train")
    file, end = Path(index.file(4)), int(index.offsets[4] + index.lengths[4])
    file.write_bytes(file.read_bytes()[: end - 10])
    with pytest.raises(DataError, match="index it again"):
        index.read(4)


def test_an_image_overwritten_by_another_size_is_noticed(as_folder, picture):
    index = open_split(str(as_folder), "train")
    data = index.read(0)
    other = picture(77, 5, 5)
    Path(index.file(0)).write_bytes(other + b"\0" * (len(data) - len(other)))
    with pytest.raises(DataError, match=r"is \(5, 5\)"):
        index.decode(0)


def test_importing_samples_does_not_import_torch():
    import subprocess
    import sys

    code = "import sys, cskd_pipeline.data; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
