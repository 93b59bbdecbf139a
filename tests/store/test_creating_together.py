"""Writers that begin at the same time on a store that is not there yet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cskd_pipeline.errors import MismatchError
from cskd_pipeline.labels import HardEncoding, encodings_to_json
from cskd_pipeline.storage import FolderStorage
from cskd_pipeline.store import StoreHeader, StoreReader, StoreWriter

CALLS = ("read", "size", "files", "folders", "create")


def header(**changes: object) -> StoreHeader:
    values: dict[str, Any] = {
        "recipe": {"name": "plain", "version": 1, "size": 16},
        "data": {"name": "toy", "split": "train", "samples": 150, "classes": 11, "digest": "ab12"},
        "teacher": {"tag": "toy", "weights": "cd34"},
        "grid": (2, 3),
        "encodings": encodings_to_json({"hard": HardEncoding(positions=6, classes=11, row_bytes=24)}),
        "block": 64,
    }
    return StoreHeader.from_json({**values, **changes})


def overtaken(path: Path, at: int, other: StoreHeader) -> tuple[FolderStorage, list[int]]:
    """A storage in which another writer makes the store just before call number `at`; and the inode it then has."""
    storage, made = FolderStorage(path), list[int]()
    calls = 0

    def wrap(name: str) -> None:
        plain = getattr(storage, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == at and not made:
                StoreWriter(path, other)
                made.append((path / "zarr.json").stat().st_ino)
            return plain(*args, **kwargs)

        setattr(storage, name, call)

    for name in CALLS:
        wrap(name)
    return storage, made


@pytest.mark.parametrize("at", range(1, 12))
def test_a_store_that_another_writer_makes_meanwhile_is_taken_as_it_is(tmp_path: Path, at: int) -> None:
    storage, made = overtaken(tmp_path / "s.zarr", at, header())
    StoreWriter(storage, header())
    assert StoreReader(tmp_path / "s.zarr").header == header()
    if made:  # it was never replaced, for others may read it at any moment
        assert (tmp_path / "s.zarr/zarr.json").stat().st_ino == made[0]


@pytest.mark.parametrize("at", range(1, 7))
def test_other_settings_of_the_writer_that_was_quicker_are_told(tmp_path: Path, at: int) -> None:
    other = header(block=128)
    storage, made = overtaken(tmp_path / "s.zarr", at, other)
    with pytest.raises(MismatchError, match="block"):
        StoreWriter(storage, header())
    assert made
    assert StoreReader(tmp_path / "s.zarr").header == other
