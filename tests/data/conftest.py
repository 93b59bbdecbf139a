"""Tiny data sets, made on the spot."""

import io
import tarfile

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """A cache of its own for every test."""
    cache = tmp_path / "cache"
    monkeypatch.setenv("CSKD_CACHE", str(cache))
    monkeypatch.delenv("CSKD_DATA_ROOT", raising=False)
    return cache


@pytest.fixture
def picture():
    """picture(seed, height, width, format="JPEG") -> the bytes of an image that is like no other."""

    def encode(seed, height=8, width=12, kind="JPEG", mode="RGB"):
        shape = (height, width) if mode == "L" else (height, width, len(mode))
        pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
        encoded = io.BytesIO()
        Image.frombytes(mode, (width, height), pixels.tobytes()).save(encoded, kind)
        return encoded.getvalue()

    return encode


@pytest.fixture
def write_tar():
    """write_tar(file, {member name: bytes}) -> file."""

    def write(file, members):
        file.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(file, "w", encoding="utf-8") as archive:
            for name, data in members.items():
                member = tarfile.TarInfo(name)
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
        return file

    return write


@pytest.fixture
def samples(picture):
    """{key: (label, encoded image)} of ten samples of two classes and several sizes; keys as in folders a, b."""
    return {
        f"{'ab'[number % 2]}/{number:02d}": (number % 2, picture(number, 6 + number, 9 + number % 3))
        for number in range(10)
    }


@pytest.fixture
def as_folder(tmp_path, samples):
    """The samples as class folders under train/ of a folder called `pets`."""
    for key, (_, data) in samples.items():
        file = tmp_path / "folders" / "pets" / "train" / f"{key}.JPEG"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    return tmp_path / "folders" / "pets"


@pytest.fixture
def as_tars(tmp_path, samples, write_tar):
    """The samples as three shards of a folder called `pets`, with a class list."""
    folder = tmp_path / "tars" / "pets"
    for shard in range(3):
        members = {}
        for key in list(samples)[shard::3]:
            label, data = samples[key]
            members |= {f"{key}.jpg": data, f"{key}.cls": str(label).encode()}
        write_tar(folder / f"train-{shard}.tar", members)
    (folder / "classes.txt").write_text("a\nb\n")
    return folder
