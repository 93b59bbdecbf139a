"""The commands on a store in a bucket, behind a server that now and then fails or is slow: the same bytes."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from s3_server import S3Server
from test_interruptions import assert_same_weights, on_disk

from cskd_pipeline.storage import Storage, open_storage

pytestmark = pytest.mark.usefixtures("s3")


@pytest.fixture
def shaky(s3_server: S3Server) -> Iterator[S3Server]:
    """One request in 29 fails on the server's side, and one in 23 takes its time."""
    numbers = itertools.count(1)

    def fault(method: str, path: str) -> int | float | None:
        number = next(numbers)
        return 503 if number % 29 == 0 else 0.1 if number % 23 == 0 else None

    s3_server.fault = fault
    yield s3_server
    s3_server.fault = lambda method, path: None


def stored(storage: Storage) -> dict[str, bytes]:
    return {file.name: storage.read(file.name, limit=1 << 30) for file in storage.files()}


@pytest.mark.slow
def test_every_command_on_a_bucket_of_a_shaky_server(
    s3: str,
    shaky: S3Server,
    command: Any,
    precompute: list[object],
    train: list[object],
    finished_store: Path,
    finished_run: Path,
    toy: Path,
    teacher_weights: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    url = f"{s3}/some/labels.zarr"
    made = command(*precompute, "--seeds", "0:2", "--out", url)
    assert made.code == 0, made.err
    storage = open_storage(url)
    assert stored(storage) == on_disk(finished_store)
    assert "2 complete seeds, 220 crops" in made.out

    shown = json.loads(command("inspect", url, "--json").out)
    assert shown["digest"] == json.loads(command("inspect", finished_store, "--json").out)["digest"]
    assert json.loads(command("status", url, "--json").out)["complete_seeds"] == [0, 1]
    source = ("--data", toy, "--teacher-weights", teacher_weights, "--workers", "0")
    verified = command("verify", url, *source, "--crops", "32")
    assert verified.code == 0, verified.err

    monkeypatch.setattr("cskd_pipeline.replay.tables.SMALL_BYTES", 0)  # decoded by a process of its own
    trained = command(*train, "--labels", url, "--scratch", tmp_path / "scratch", "--out", tmp_path / "run")
    assert trained.code == 0, trained.err
    assert_same_weights(tmp_path / "run", finished_run)
    assert [*(tmp_path / "scratch").iterdir()] == []

    whole = stored(storage)
    shard = "seed-000001/crop_crc/c/2"
    storage.write(shard, whole[shard][:-3] + b"abc")
    storage.delete("seed-000000/zarr.json")
    storage.delete("seed-000000/commits/000001.json")
    found = command("verify", url)
    assert found.code == 3
    for text in (f"{url}/{shard}", f"{url}/seed-000000/zarr.json", "seed 0 is incomplete"):
        assert text in found.out
    mended = command("repair", url, *source)
    assert mended.code == 0, mended.err
    assert "1 attribute files written and 2 blocks computed again" in mended.out
    assert stored(storage) == whole


@pytest.mark.parametrize("words", [["inspect"], ["status"], ["verify"], ["repair"]])
def test_no_store_in_the_bucket_or_no_bucket_is_one_line(s3: str, command: Any, words: list[str]) -> None:
    missing = command(*words, f"{s3}/nothing")
    assert missing.code == 3
    assert f"no label store at {s3}/nothing" in missing.error
    closed = command(*words, "s3://no-such-bucket/x")
    assert closed.code == 3
    assert "no such bucket" in closed.error


def test_a_store_in_a_closed_bucket_can_be_tried_again(
    s3: str, s3_server: S3Server, command: Any, precompute: list[object], train: list[object], tmp_path: Path
) -> None:
    s3_server.fault = lambda method, path: 403
    made = command(*precompute, "--out", f"{s3}/x")
    trained = command(*train, "--labels", f"{s3}/x", "--out", tmp_path / "run")
    for outcome in (made, trained):
        assert outcome.code == 75
        assert "access is denied" in outcome.error and "AWS_ACCESS_KEY_ID" in outcome.error
        assert "secret" not in outcome.err
