"""A folder and a bucket behave alike: files appear whole, one of many creators wins, and trouble is one clear line."""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from s3_server import S3Server

from cskd_pipeline.errors import DataError, RetryError, UsageError
from cskd_pipeline.runtime.process_name import has_ended, process_name
from cskd_pipeline.storage import FolderStorage, Storage, is_address, open_storage
from cskd_pipeline.storage.folder import HALF_WRITTEN


@pytest.fixture(params=["folder", "bucket"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "folder":
        return open_storage(tmp_path / "new")
    return open_storage(request.getfixturevalue("s3") + "/some/where")


def test_what_is_written_is_there(storage: Storage) -> None:
    assert list(storage.files()) == [] and storage.folders() == [] and storage.size("a") is None
    content = bytes(range(256)) * 40
    storage.write("b/c/d.bin", content)
    storage.write("b/a.bin", b"")
    storage.write("top.json", b"{}")
    assert storage.read("b/c/d.bin", limit=len(content)) == content
    assert storage.read_ranges("b/c/d.bin", [(0, 4), (256, 260), (10_239, 10_240)]) == [
        bytes([0, 1, 2, 3]),
        bytes([0, 1, 2, 3]),
        b"\xff",
    ]
    assert [file[:2] for file in storage.files()] == [("b/a.bin", 0), ("b/c/d.bin", 10_240), ("top.json", 2)]
    assert [file[:2] for file in storage.files("b/c")] == [("b/c/d.bin", 10_240)]
    assert storage.folders() == ["b"] and storage.folders("b") == ["c"] and storage.folders("x") == []
    assert storage.size("b/a.bin") == 0 and storage.size("b") is None
    storage.write("b/c/d.bin", b"new")
    assert storage.read("b/c/d.bin", limit=3) == b"new"
    storage.delete("b/c/d.bin")
    storage.delete("b/c/d.bin")
    assert storage.size("b/c/d.bin") is None


def test_what_is_not_there_or_too_large_is_said(storage: Storage) -> None:
    storage.write("x", b"12345")
    for name in ("y", "x/y"):
        with pytest.raises(FileNotFoundError):
            storage.read(name, limit=9)
        with pytest.raises(FileNotFoundError):
            storage.read_ranges(name, [(0, 1)])
    with pytest.raises(DataError, match="has 5 bytes, at most 4"):
        storage.read("x", limit=4)
    with pytest.raises((DataError, RetryError)):
        storage.read_ranges("x", [(3, 9)])
    assert storage.read_ranges("x", []) == []


def test_of_many_who_create_one_succeeds(storage: Storage) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda number: storage.create("claim", b"%d" % number, durable=False), range(16)))
    assert made.count(True) == 1
    assert storage.read("claim", limit=9) == b"%d" % made.index(True)
    storage.delete("claim")
    assert storage.create("claim", b"again")


def test_a_file_system_without_hard_links_does_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refuse)
    storage = FolderStorage(tmp_path)
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda number: storage.create("claim", b"%d" % number), range(16)))
    assert made.count(True) == 1
    assert storage.read("claim", limit=9) == b"%d" % made.index(True)
    assert [file[:2] for file in storage.files()] == [("claim", len(b"%d" % made.index(True)))]


def test_addresses_are_told_from_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_address("s3://bucket/x") and is_address("gs://bucket/x") and is_address("ftp://host/x")
    assert not is_address("/path/s3") and not is_address("labels.zarr")
    for text, said in (
        ("ftp://host/x", "ftp://host/x"),
        ("s3://", "no address"),
        ("", "empty"),
        ("s3:/x", "no address"),
    ):
        with pytest.raises(UsageError, match=said):
            open_storage(text)
    monkeypatch.chdir(tmp_path)
    assert open_storage("x").address == str(tmp_path / "x")
    monkeypatch.setitem(sys.modules, "obstore.store", None)
    with pytest.raises(UsageError, match=r"needs the package obstore: pip install 'cskd-pipeline\[objects\]'"):
        open_storage("s3://bucket/x")


def test_google_addresses_open_without_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOOGLE_SKIP_SIGNATURE", "true")
    assert open_storage("gs://bucket/a/b/").address == "gs://bucket/a/b"


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO, errno.ESTALE])
@pytest.mark.parametrize("call", ["fsync", "link", "replace", "mkdir"])
def test_a_folder_that_refuses_is_one_line_and_keeps_what_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int, call: str
) -> None:
    storage = FolderStorage(tmp_path / "s")
    storage.write("a/b", b"old")

    def refuse(*args: Any, **settings: Any) -> None:
        raise OSError(error, os.strerror(error))

    with monkeypatch.context() as patched:
        owner = {"fsync": os, "link": os, "replace": Path, "mkdir": Path}[call]
        patched.setattr(owner, call, refuse)
        write = (lambda: storage.create("a/c", b"x")) if call == "link" else (lambda: storage.write("a/b", b"new"))
        with pytest.raises(RetryError, match=os.strerror(error)) as caught:
            write()
    assert str(tmp_path / "s/a") in str(caught.value)
    assert [file[:2] for file in storage.files()] == [("a/b", 3)]
    assert storage.read("a/b", limit=3) == b"old"


def test_reading_where_the_mount_has_vanished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = FolderStorage(tmp_path)
    storage.write("a", b"1")

    def stale(*args: Any, **settings: Any) -> None:
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    for name in ("open", "scandir"):
        with monkeypatch.context() as patched:
            patched.setattr(os, name, stale)
            with pytest.raises(RetryError, match=r"cannot read .* see to the storage"):
                storage.read("a", limit=1) if name == "open" else list(storage.files())


def test_what_is_no_plain_file_is_refused_without_waiting(tmp_path: Path) -> None:
    storage = FolderStorage(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    (tmp_path / "folder").mkdir()
    for name in ("pipe", "zero", "folder"):
        with pytest.raises(DataError, match="no plain file"):
            storage.read(name, limit=10)
        assert storage.size(name) is None


WRITER = """
import sys, os
from pathlib import Path
from cskd_pipeline.storage import FolderStorage
storage, number = FolderStorage(Path(sys.argv[1])), 0
while True:
    number += 1
    storage.write("file", (b"%09d" % number) * 200_000)
"""


def test_a_killed_writer_leaves_the_old_or_the_new_and_its_remains_are_swept(tmp_path: Path) -> None:
    chance = random.Random(1)
    storage = FolderStorage(tmp_path / "s")
    for _ in range(6):
        process = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path / "s")])
        while storage.size("file") is None:
            time.sleep(0.01)
        time.sleep(chance.uniform(0.02, 0.1))
        process.send_signal(signal.SIGKILL)
        process.wait()
        content = storage.read("file", limit=1_800_000)
        assert len(content) == 1_800_000 and content == content[:9] * 200_000
    (tmp_path / "s" / HALF_WRITTEN / f"{process_name()}.x").write_bytes(b"of one that lives")
    (tmp_path / "s" / HALF_WRITTEN / "another-machine-1-2-abc.x").write_bytes(b"of one elsewhere")
    (tmp_path / "s" / HALF_WRITTEN / "another-machine-1-2-abc.y").write_bytes(b"of one elsewhere, two days ago")
    ago = time.time() - 2 * 86_400
    os.utime(tmp_path / "s" / HALF_WRITTEN / "another-machine-1-2-abc.y", (ago, ago))
    storage.sweep()
    left = [path.read_bytes() for path in (tmp_path / "s" / HALF_WRITTEN).iterdir()]
    assert sorted(left) == [b"of one elsewhere", b"of one that lives"]


def test_links_are_followed_to_seeds_on_other_disks_and_no_further(tmp_path: Path) -> None:
    FolderStorage(tmp_path / "disk").write("hard/c/0", b"x")
    storage = FolderStorage(tmp_path / "s")
    storage.write("zarr.json", b"{}")
    (tmp_path / "s/seed-000000").symlink_to(tmp_path / "disk")
    (tmp_path / "disk/around").symlink_to(tmp_path / "s")
    (tmp_path / "disk/itself").symlink_to(tmp_path / "disk/itself")
    names = [file.name for file in storage.files()]
    assert sorted(names) == ["seed-000000/around", "seed-000000/hard/c/0", "seed-000000/itself", "zarr.json"]


def test_a_file_that_was_replaced_on_nfs_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = FolderStorage(tmp_path)
    storage.write("a", b"content")
    real, calls = os.open, []

    def stale(*args: Any, **settings: Any) -> int:
        calls.append(args)
        if len(calls) == 1:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return real(*args, **settings)

    monkeypatch.setattr(os, "open", stale)
    assert storage.read("a", limit=9) == b"content" and len(calls) == 2


def test_a_process_that_ended_is_told_from_one_that_runs_or_is_elsewhere() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", "from cskd_pipeline.runtime.process_name import process_name as n; print(n())"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    own = process_name()
    assert has_ended(ended) and not has_ended(own) and own != process_name()
    place, pid, start, chance = own.split("-")
    assert has_ended(f"{place}-{pid}-{int(start) + 1}-{chance}")  # its number was given to this process later
    assert not has_ended(f"{'0' * 12}-{pid}-{int(start) + 1}-{chance}")
    assert not has_ended("nonsense") and not has_ended("")


def test_server_errors_are_tried_again_and_slow_answers_waited_for(s3: str, s3_server: S3Server) -> None:
    storage = open_storage(s3 + "/x")
    left = {"PUT": 2, "GET": 2, "HEAD": 1}

    def fault(method: str, path: str) -> int | float | None:
        if left.get(method, 0) > 0:
            left[method] -= 1
            return 503
        return 0.05

    s3_server.fault = fault
    storage.write("a", b"content")
    assert storage.read("a", limit=9) == b"content"
    assert storage.size("a") == 7
    left["PUT"] = 1
    assert storage.create("b", b"mine")
    assert not storage.create("b", b"theirs")
    assert left == {"PUT": 0, "GET": 0, "HEAD": 0}


def test_a_create_whose_answer_was_lost_counts_as_made(s3: str) -> None:
    storage = open_storage(s3)
    storage.write("claim", b"mine")  # the first attempt, of which nothing was heard
    assert storage.create("claim", b"mine")


def test_a_bucket_that_is_missing_or_closed_is_one_line(s3: str, s3_server: S3Server) -> None:
    missing = open_storage("s3://no-such-bucket/x")
    for use in (
        lambda: missing.write("a", b""),
        lambda: [*missing.files()],
        lambda: missing.read("a", limit=1),
        lambda: missing.folders(),
    ):
        with pytest.raises(DataError, match="s3://no-such-bucket/x: there is no such bucket"):
            use()
    s3_server.fault = lambda method, path: 403
    storage = open_storage(s3)
    for use in (lambda: storage.write("a", b""), lambda: [*storage.files()], lambda: storage.read("a", limit=1)):
        with pytest.raises(RetryError, match="access is denied; give credentials"):
            use()
