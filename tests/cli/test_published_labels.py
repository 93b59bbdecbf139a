"""Labels published on the hub or on a web server are used like those in a folder, and only read."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hub_server import HubServer

from cskd_pipeline.store import StoreReader


@pytest.fixture
def published(command: Any, hub: HubServer, finished_store: Path) -> str:
    """The address of both seeds on the hub, with hard and soft targets."""
    done = command("export-labels", finished_store, "hf://me/labels", "--license", "mit", "--targets", "hard,soft")
    assert done.code == 0, done.err
    assert done.out.startswith("hf://me/labels: seeds 0:2, 220 crops, ")
    return "hf://me/labels"


@pytest.fixture
def web(command: Any, finished_store: Path, tmp_path: Path) -> Iterator[str]:
    """The address of a copy on a web server."""
    assert command("export-labels", finished_store, tmp_path / "public" / "l.zarr", "--license", "mit").code == 0

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

    handler = partial(Handler, directory=str(tmp_path / "public"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/l.zarr"
        server.shutdown()


def test_what_is_uploaded_is_the_store(
    command: Any, hub: HubServer, published: str, finished_store: Path, tmp_path: Path
) -> None:
    same = ("export-labels", finished_store, tmp_path / "copy.zarr", "--license", "mit", "--targets", "hard,soft")
    assert command(*same).code == 0
    files = {f.relative_to(tmp_path / "copy.zarr").as_posix(): f.read_bytes() for f in (tmp_path / "copy.zarr").rglob("*") if f.is_file()}  # fmt: skip  # noqa: E501
    uploaded = {
        name: content for name, content in hub.files("datasets", "me/labels").items() if name != ".gitattributes"
    }
    assert uploaded == files


@pytest.mark.parametrize("kind", ["published", "web"])
def test_they_are_inspected_verified_and_trained_on(
    kind: str, command: Any, train: list[object], toy: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    place = request.getfixturevalue(kind)
    shown = json.loads(command("inspect", place, "--json").out)
    assert shown["complete_seeds"] == [0, 1] and shown["crops"] == 220
    assert command("verify", place).code == 0
    assert command("status", place).code == 0
    assert command(*train, "--labels", place, "--out", tmp_path / "run").code == 0
    assert command("export-labels", place, tmp_path / "back.zarr", "--seeds", "1", "--license", "mit").code == 0
    assert StoreReader(str(tmp_path / "back.zarr")).complete_seeds() == [1]
    page = command("report", place, "--data", toy, "--out", tmp_path / "page.html", "--crops", "1")
    assert page.code == 0, page.err


def test_training_downloads_what_it_reads_alone(
    command: Any, train: list[object], hub: HubServer, published: str, tmp_path: Path
) -> None:
    hub.requests.clear()
    trained = command(*train, "--labels", published, "--seeds", "1", "--objective", "cskd", "--out", tmp_path / "run")
    assert trained.code == 0, trained.err
    got = [path for method, path in hub.requests if method == "GET" and "/resolve/" in path]
    blocks = [path for path in got if path.endswith(tuple("0123456789")) or "/c/" in path]
    assert blocks and all("/seed-000001/" in path and "/soft/" not in path for path in blocks)


def test_more_seeds_are_added_to_what_is_published(command: Any, hub: HubServer, finished_store: Path) -> None:
    for seed in (0, 1):
        to = ("hf://me/more", "--private")
        done = command("export-labels", finished_store, *to, "--seeds", seed, "--license", "mit")
        assert done.code == 0, done.err
    assert done.out.startswith("hf://me/more: seeds 0:2, 220 crops")
    assert len(hub.commits["datasets", "me/more"]) == 3  # made, and two seeds
    assert hub.private == {"me/more"}
    assert command("verify", "hf://me/more").code == 0
    assert b"0:2" in hub.files("datasets", "me/more")["README.md"]


def test_nothing_is_written_there(
    command: Any, precompute: list[object], published: str, web: str, store: Path
) -> None:
    for place in (published, web):
        for words in ([*precompute, "--out", place], ["add-targets", store, "--targets", "full", "--out", place]):
            refused = command(*words)
            assert refused.code == 2 and "is only read; write to a folder or a bucket" in refused.error
    refused = command("export-labels", store, web, "--license", "mit")
    assert refused.code == 2 and "is only read" in refused.error


def test_a_web_server_without_a_list_of_files_is_named(command: Any, web: str, tmp_path: Path) -> None:
    (tmp_path / "public" / "l.zarr" / "files.json").write_text("[1]")
    assert "files.json is damaged" in command("inspect", web).error
    (tmp_path / "public" / "l.zarr" / "files.json").unlink()
    refused = command("inspect", web)
    assert refused.code == 3 and "has no files.json, which `cskd-pipeline export-labels` writes" in refused.error


def test_what_is_not_on_the_hub_is_named(command: Any, hub: HubServer, published: str) -> None:
    for place, code, said in (
        ("hf://me/absent", 3, "has no such data set"),
        ("hf://me/labels@v2", 3, "has no revision 'v2'"),
        ("hf://labels", 2, "no address on the hub"),
    ):
        refused = command("inspect", place)
        assert refused.code == code and said in refused.error
    hub.token = "secret"
    refused = command("export-labels", published, "hf://me/labels2", "--license", "mit")
    assert refused.code == 3 and "HF_TOKEN" in refused.error
