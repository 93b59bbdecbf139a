"""A store that was exported is the store: it passes, shows and trains the same, and the same command continues."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from cskd_pipeline_cli.main import main
from test_interruptions import assert_same_weights, failing_after, on_disk, raising

from cskd_pipeline.storage import FolderStorage, open_storage


def test_an_exported_store_passes_and_trains_to_the_same_weights(
    finished_store: Path, finished_run: Path, tmp_path: Path, command: Any, train: list[object]
) -> None:
    out = tmp_path / "labels.zarr"
    exported = command("export-labels", finished_store, out)
    assert exported.code == 0, exported.err
    shown = json.loads(command("inspect", out, "--json").out)
    assert shown["digest"] == json.loads(command("inspect", finished_store, "--json").out)["digest"]
    assert re.fullmatch(rf"{out}: seeds 0:2, 220 crops, [\d,]+ bytes, digest {shown['digest']}\n", exported.out)
    assert exported.err == ""
    files = on_disk(out)
    assert json.loads(files.pop("files.json")) == {name: len(content) for name, content in files.items()}
    assert files.pop("README.md").startswith(b"---\nlicense: other\n")
    assert files == on_disk(finished_store)
    verified = command("verify", out)
    assert verified.code == 0, verified.err
    trained = command(*train, "--labels", out, "--out", tmp_path / "run")
    assert trained.code == 0, trained.err
    assert_same_weights(tmp_path / "run", finished_run)


def test_a_part_of_a_store_is_the_store_of_that_part(
    finished_store: Path, hard_store: Path, tmp_path: Path, command: Any, precompute: list[object]
) -> None:
    words = ["export-labels", finished_store, tmp_path / "out", "--targets", "hard", "--seeds", "0", "--json"]
    facts = json.loads(command(*words).out)
    made = json.loads(command("inspect", hard_store, "--json").out)
    assert (facts["digest"], facts["seeds"], facts["crops"]) == (made["digest"], [0], 110)
    assert facts["bytes"] == round(made["bytes_per_crop"]["total"] * 110)
    assert (facts["blocks_copied"], facts["blocks_present"], facts["card_written"]) == (4, 0, True)
    again = json.loads(command(*words, "--license", "MIT").out)
    assert again == {**facts, "blocks_copied": 0, "blocks_present": 4}
    assert (tmp_path / "out/README.md").read_text().startswith("---\nlicense: mit\n")
    assert command("verify", tmp_path / "out").code == 0
    assert command(*precompute, "--seeds", "0:2", "--out", tmp_path / "out").code == 0  # it can be gone on with
    grown = json.loads(command("export-labels", finished_store, tmp_path / "all", "--targets", "hard", "--json").out)
    assert grown["digest"] == json.loads(command("inspect", tmp_path / "out", "--json").out)["digest"]


def test_incomplete_seeds_are_named_and_left_out(store: Path, tmp_path: Path, command: Any) -> None:
    (store / "seed-000001/commits/000002.json").unlink()
    outcome = command("export-labels", store, tmp_path / "out", "--json")
    assert outcome.code == 0 and json.loads(outcome.out)["seeds"] == [0]
    assert "seed 1 is left out: it is incomplete, 3 of 4 blocks" in outcome.err
    assert command("verify", tmp_path / "out").code == 0


def test_the_same_command_goes_on(
    finished_store: Path, tmp_path: Path, command: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cskd_pipeline.publish.copying.THREADS", 1)
    words = ["export-labels", finished_store, tmp_path / "out"]
    with monkeypatch.context() as patch:
        patch.setattr(FolderStorage, "write", failing_after(21, FolderStorage.write, raising(KeyboardInterrupt())))
        stopped = command(*words)
    assert stopped.code == 75 and "the same command to continue" in stopped.error and stopped.out == ""
    assert not (tmp_path / "out/README.md").exists()
    (tmp_path / "out/README.md").write_text("mine")
    finished = command(*words)
    assert finished.code == 0, finished.err
    assert re.search(r"[1-7] of 8 blocks are there already; [1-7] to copy", finished.err)
    assert f"{tmp_path / 'out/README.md'} was left as it is" in finished.err
    files = on_disk(tmp_path / "out")
    assert len(json.loads(files.pop("files.json"))) == len(files)
    assert files == {**on_disk(finished_store), "README.md": b"mine"}


def test_a_bucket_is_written_and_read(finished_store: Path, tmp_path: Path, s3: str, command: Any) -> None:
    url = f"{s3}/labels.zarr"
    assert command("export-labels", finished_store, url).code == 0
    assert command("verify", url).code == 0
    (tmp_path / "README.md").write_text("a card beside the labels is not part of them")
    assert command("export-labels", url, tmp_path).code == 0
    files = on_disk(tmp_path)
    assert "files.json" in files and files.pop("files.json")
    assert files.pop("README.md").startswith(b"a card beside")
    assert files == on_disk(finished_store)
    again = command("export-labels", url, f"{url}/inside")
    assert again.code == 2 and "lies inside the store" in again.error
    assert not [*open_storage(f"{url}/inside").files()]


def test_commands_in_a_card_exist_with_their_options(finished_store: Path, tmp_path: Path, command: Any) -> None:
    assert command("export-labels", finished_store, tmp_path / "out").code == 0
    lines = re.findall(r"^cskd-pipeline (.*)$", (tmp_path / "out/README.md").read_text(), re.MULTILINE)
    assert [line.split()[0] for line in lines] == ["verify", "train", "export-labels"]
    for name, *words in map(str.split, lines):
        known = {option for parameter in main.commands[name].params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= known
