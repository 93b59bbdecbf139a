"""`hf://`: files of a data set at one commit, downloaded as they are read, and found again without the network."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
from hub_server import HubServer

from cskd_pipeline.errors import DataError, RetryError, UsageError
from cskd_pipeline.storage import HubStorage, Storage, open_storage

FILES = {"a.json": b"one", "seed-0/hard/0": b"0123456789", "seed-0/hard/1": b"x", "seed-1/b": b"", "README.md": b"card"}


@pytest.fixture
def commit(hub: HubServer) -> str:
    return hub.commit("datasets", "me/labels", FILES)


def test_files_are_listed_and_read(hub: HubServer, commit: str) -> None:
    storage: Storage = open_storage("hf://me/labels")
    assert isinstance(storage, HubStorage)
    assert [(file.name, file.size) for file in storage.files()] == sorted((n, len(c)) for n, c in FILES.items())
    assert [file.name for file in storage.files(deep=False)] == ["README.md", "a.json"]
    assert [file.name for file in storage.files("seed-0")] == ["seed-0/hard/0", "seed-0/hard/1"]
    assert [*storage.files("seed-0", deep=False)] == [] and [*storage.files("seed")] == []
    assert storage.folders() == ["seed-0", "seed-1"] and storage.folders("seed-0") == ["hard"]
    assert storage.size("seed-0/hard/0") == 10 and storage.size("seed-0/hard") is None
    assert storage.read("a.json", limit=3) == b"one" and storage.read("seed-1/b", limit=0) == b""
    assert storage.read_ranges("seed-0/hard/0", [(2, 4), (9, 10)]) == [b"23", b"9"]
    assert storage.address == f"hf://me/labels@{commit}" and storage.at("a.json") == f"hf://me/labels@{commit}/a.json"


def test_only_what_is_read_is_downloaded_and_once(hub: HubServer, commit: str) -> None:
    for _ in range(2):
        open_storage("hf://me/labels").read("a.json", limit=3)
    got = [path for method, path in hub.requests if method == "GET" and "/resolve/" in path]
    assert got == [f"/datasets/me/labels/resolve/{commit}/a.json"]


def test_errors_of_reading_are_those_of_any_storage(hub: HubServer, commit: str) -> None:
    storage = open_storage("hf://me/labels")
    with pytest.raises(FileNotFoundError):
        storage.read("absent", limit=1)
    with pytest.raises(DataError, match="has 3 bytes, at most 2"):
        storage.read("a.json", limit=2)
    with pytest.raises(DataError):
        storage.read_ranges("a.json", [(2, 9)])


def test_all_is_read_at_the_commit_that_was_there_first(hub: HubServer, commit: str) -> None:
    storage = open_storage("hf://me/labels")
    assert storage.read("a.json", limit=3) == b"one"
    later = hub.commit("datasets", "me/labels", {**FILES, "a.json": b"two", "seed-1/b": b"new"})
    assert storage.read("seed-1/b", limit=3) == b"" and pickle.loads(pickle.dumps(storage)).address == storage.address
    assert open_storage(storage.address).read("a.json", limit=3) == b"one"
    assert open_storage("hf://me/labels").read("a.json", limit=3) == b"two"
    assert open_storage(f"hf://datasets/me/labels@{later}").read("a.json", limit=3) == b"two"


def test_a_folder_of_a_data_set(hub: HubServer, commit: str) -> None:
    storage = open_storage("hf://me/labels/seed-0/")
    assert [file.name for file in storage.files()] == ["hard/0", "hard/1"]
    assert storage.read("hard/1", limit=1) == b"x" and storage.address == f"hf://me/labels@{commit}/seed-0"


def test_without_the_network_what_was_downloaded_is_there(
    hub: HubServer, commit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_storage("hf://me/labels").read("a.json", limit=3)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    storage = open_storage("hf://me/labels")
    assert storage.read("a.json", limit=3) == b"one"
    assert [file.name for file in storage.files()] == ["a.json"]
    with pytest.raises(RetryError, match=r"hf://me/other is out of reach .*check the network"):
        open_storage("hf://me/other").read("a.json", limit=3)


@pytest.mark.parametrize(
    ("address", "kind", "said"),
    [
        ("hf://me/absent", DataError, "hf://me/absent: http.* has no such data set.*HF_TOKEN"),
        ("hf://me/labels@v9", DataError, "hf://me/labels has no revision 'v9'"),
        ("hf://me", UsageError, "no address on the hub; give hf://USER/NAME"),
        ("hf://me/la..bels", UsageError, "no address on the hub"),
    ],
)
def test_what_is_not_there_is_named(
    address: str, kind: type[Exception], said: str, hub: HubServer, commit: str
) -> None:
    with pytest.raises(kind, match=said):
        open_storage(address).read("a.json", limit=3)


def test_nothing_is_written(hub: HubServer, commit: str) -> None:
    storage = open_storage("hf://me/labels")
    for act in (
        lambda: storage.write("a.json", b""),
        lambda: storage.create("new", b""),
        lambda: storage.delete("a.json"),
    ):
        with pytest.raises(UsageError, match=f"hf://me/labels@{commit} is only read"):
            act()
    storage.sweep()
    assert storage.free_bytes() is None and len(hub.commits["datasets", "me/labels"]) == 1


def test_small_files_are_staged_and_new_ones_uploaded(hub: HubServer, commit: str, tmp_path: Path) -> None:
    storage = open_storage("hf://me/labels")
    assert isinstance(storage, HubStorage)
    storage.stage(tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {"a.json", "README.md", ".cache"}
    (tmp_path / "new").write_bytes(b"new")
    storage.upload(tmp_path, message="more")
    assert hub.files("datasets", "me/labels") == {**FILES, "new": b"new"}
    hub.token = "secret"
    with pytest.raises(DataError, match=r"may not be written .*HF_TOKEN"):
        storage.upload(tmp_path, message="no")
    with pytest.raises(UsageError, match="names a revision or a folder"):
        HubStorage("hf://me/labels@main").stage(tmp_path)
