"""A packed split is the same data set, laid out in its order."""

from __future__ import annotations

import numpy as np
import pytest

from cskd_pipeline.data import open_split
from cskd_pipeline.data.pack import pack
from cskd_pipeline.data.sample_index import SampleIndex
from cskd_pipeline.errors import DataError, RetryError, UsageError


@pytest.fixture
def photos(tmp_path, picture):
    """Folders of images, some of which are not what their name says."""
    root = tmp_path / "photos"
    for split, count in (("train", 9), ("val", 3)):
        for number in range(count):
            file = root / split / f"class{number % 3}" / f"{split}{number}.{'jpg' if number % 2 else 'png'}"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(picture(number, kind="PNG" if number == 1 else "JPEG"))
    return root


def test_a_packed_split_is_the_same_data_set_in_its_own_order(photos, tmp_path):
    steps = []
    for split in ("train", "val"):
        shards = pack(
            open_split(str(photos), split),
            tmp_path / "packed",
            shard_samples=4,
            progress=lambda *step: steps.append(step),
        )
        assert [shard.name for shard in shards] == [f"{split}-{n:06d}.tar" for n in range(3 if split == "train" else 1)]
        before, after = open_split(str(photos), split), open_split(str(tmp_path / "packed"), split)
        assert after.digest == before.digest and after.classes == before.classes
        assert [after.read(sample) for sample in range(len(after))] == [before.read(s) for s in range(len(before))]
        places = list(zip(after.file_ids.tolist(), after.offsets.tolist(), strict=True))
        assert places == sorted(places)
        assert np.diff(after.file_ids).max(initial=0) <= 1
    assert steps == [(n, 9) for n in range(1, 10)] + [(n, 3) for n in range(1, 4)]
    pack(open_split(str(photos), "train"), tmp_path / "again", shard_samples=4)
    for shard in (tmp_path / "again").iterdir():
        assert shard.read_bytes() == (tmp_path / "packed" / shard.name).read_bytes()


def test_a_folder_that_is_taken_is_left_alone(photos, tmp_path):
    index = open_split(str(photos), "train")
    pack(index, tmp_path / "packed")
    with pytest.raises(UsageError, match="holds shards of train already"):
        pack(index, tmp_path / "packed")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "classes.txt").write_text("daisy\n")
    with pytest.raises(UsageError, match="other classes"):
        pack(index, tmp_path / "other")
    assert [file.name for file in (tmp_path / "other").iterdir()] == ["classes.txt"]


def test_what_was_interrupted_is_no_shard_and_can_be_done_again(photos, tmp_path, monkeypatch):
    index = open_split(str(photos), "train")
    key = SampleIndex.key

    def full(self, sample):
        if sample == 6:
            raise OSError(28, "No space left on device")
        return key(self, sample)

    monkeypatch.setattr(SampleIndex, "key", full)
    with pytest.raises(RetryError, match="No space left"):
        pack(index, tmp_path / "packed", shard_samples=2)
    assert not list((tmp_path / "packed").glob("*.tar"))
    monkeypatch.setattr(SampleIndex, "key", key)
    assert len(pack(index, tmp_path / "packed", shard_samples=2)) == 5
    assert open_split(str(tmp_path / "packed"), "train").digest == index.digest


def test_a_key_that_a_tar_cannot_hold_is_named(tmp_path, picture):
    file = tmp_path / "photos" / "class0" / "a.b.jpg"
    file.parent.mkdir(parents=True)
    file.write_bytes(picture(0))
    with pytest.raises(DataError, match=r"'class0/a\.b' has a dot in its name"):
        pack(open_split(str(tmp_path / "photos"), "train"), tmp_path / "packed")
