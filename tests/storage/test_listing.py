"""A folder and a bucket list the same files, and tell when one was written anew."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from cskd_pipeline.errors import DataError, RetryError
from cskd_pipeline.storage import Storage, open_storage

NAMES = ["a.tar", "b/c.tar", "b/d/e.tar", "z.tar"]


@pytest.fixture(params=["folder", "bucket"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    root = str(tmp_path) if request.param == "folder" else request.getfixturevalue("s3") + "/some/place"
    found = open_storage(root)
    for name in NAMES:
        found.write(name, name.encode())
    return found


def test_files_are_listed_at_any_depth_or_in_one_folder(storage: Storage) -> None:
    assert [(file.name, file.size) for file in storage.files()] == [(name, len(name)) for name in NAMES]
    assert [file.name for file in storage.files(deep=False)] == ["a.tar", "z.tar"]
    assert [file.name for file in storage.files("b", deep=False)] == ["b/c.tar"]
    assert list(storage.files("none", deep=False)) == []
    assert storage.folders() == ["b"]


def test_a_file_that_was_written_anew_has_another_version(storage: Storage, tmp_path: Path) -> None:
    before = {file.name: file.version for file in storage.files()}
    storage.write("a.tar", b"a.TAR")
    if (tmp_path / "a.tar").exists():
        os.utime(tmp_path / "a.tar", ns=(1, 1))  # not within one tick of the clock
    after = {file.name: file.version for file in storage.files()}
    assert {name for name in NAMES if before[name] != after[name]} == {"a.tar"}
    assert "" not in after.values()


@pytest.mark.parametrize("ranges", [[(0, 6)], [(5, 6)], [(700, 710)], [(0, 2), (700, 710)], [(0, 2), (3, 6)]])
def test_a_range_beyond_the_end_is_an_error_of_the_data(storage: Storage, ranges: list[tuple[int, int]]) -> None:
    assert storage.read_ranges("a.tar", [(0, 2), (3, 5)]) == [b"a.", b"ar"]
    with pytest.raises(DataError, match=r"a\.tar"):
        storage.read_ranges("a.tar", ranges)


def test_a_missing_bucket_is_named(s3: str) -> None:
    missing = open_storage("s3://no-such-bucket/data")
    uses: list[Callable[[], object]] = [
        lambda: list(missing.files()),
        lambda: list(missing.files(deep=False)),
        lambda: missing.read_ranges("a", [(0, 1)]),
    ]
    for use in uses:
        with pytest.raises(DataError, match="s3://no-such-bucket/data: there is no such bucket"):
            use()


def test_a_server_out_of_reach_is_a_reason_to_try_again(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cskd_pipeline.storage.objects.RETRIES", 0)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(RetryError, match=r"cannot read s3://bucket.*run the same command again"):
        list(open_storage(f"{s3}/data").files())
