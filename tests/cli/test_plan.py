"""`plan` measures what `precompute` then takes and stores, and both say when the disk is too small."""

from __future__ import annotations

import json
import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest

import cskd_pipeline as cskd
from cskd_pipeline.storage import FolderStorage

Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def plan(precompute: list[object]) -> list[object]:
    return ["plan", *precompute[1:], "--seconds", "1"]


def test_bytes_are_those_that_are_stored(command: Any, plan: list[object], finished_store: Path) -> None:
    made = command(*plan, "--seeds", "0:2", "--json")
    assert made.code == 0
    found, stored = json.loads(made.out), cskd.inspect(finished_store).bytes_per_crop
    assert (found["images"], found["seeds"], found["crops"], found["grid"]) == (110, 2, 220, [4, 4])
    assert found["bytes"]["total"] == sum(size for name, size in found["bytes"].items() if name != "total")
    for name, value in found["bytes_per_crop"].items():
        assert found["bytes"][name] == round(220 * value)
        # Small blocks of a small set: what each file has besides the labels counts.
        assert value == pytest.approx(stored[name], rel=0.15)


def test_times_follow_from_the_rates(command: Any, plan: list[object]) -> None:
    found = json.loads(command(*plan, "--seeds", "0:3", "--devices", "4", "--epochs", "10", "--json").out)
    assert found["measured_crops"] >= 16 and found["crops_s"] > 0
    assert found["seconds"] == pytest.approx(330 / found["crops_s"])
    assert found["seconds_shared"] == pytest.approx(found["seconds"] / 4)
    assert found["live_seconds"] == pytest.approx(1100 / found["teacher_crops_s"])
    assert found["cores"] == pytest.approx(found["teacher_crops_s"] / found["core_crops_s"])
    assert found["training_bytes"] == {name: 2 * size for name, size in found["table_bytes"].items()}
    assert found["table_bytes"].keys() == {"hard", "soft", "truth"}


def test_it_is_shown_and_stores_nothing(
    command: Any, plan: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shown = command(*plan, "--out", tmp_path / "s.zarr")
    assert shown.code == 0
    assert shown.out.startswith("110 images x 1 seed = 110 crops of 32 px, measured on ")
    for part in ("hard", "crops/s on this device (cpu)", "live teacher", "for each run of 300 epochs"):
        assert part in shown.out
    assert [*tmp_path.iterdir()] == []


def test_a_store_that_is_there_decides_what_is_stored(command: Any, plan: list[object], hard_store: Path) -> None:
    found = json.loads(command(*plan, "--out", hard_store, "--seeds", "0:4", "--json").out)
    assert found["bytes_per_crop"].keys() == {"crop_crc", "hard"}
    other = command(*plan, "--out", hard_store, "--size", "48")
    assert other.code == 4 and "size" in other.error


def test_a_disk_that_is_too_small_is_said_before_the_start(
    command: Any, plan: list[object], precompute: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**9, 10**9 - 3000, 3000))
    store = tmp_path / "s.zarr"
    planned = command(*plan, "--out", store)
    assert planned.code == 0
    assert "warning: the labels need about " in planned.err and f"{store} has 3.0 kB free" in planned.err
    made = command(*precompute, "--out", store, "--seeds", "0")
    assert made.code == 0
    warning = next(line for line in made.err.splitlines() if line.startswith("warning: the labels need up to "))
    assert made.err.index(warning) < made.err.index("committed")
    more = command(*precompute, "--out", store, "--seeds", "0:2")
    assert "warning: the labels need about " in more.err
    again = command(*precompute, "--out", store, "--seeds", "0")
    assert "warning: the labels" not in again.err  # nothing is left to do


def test_free_room_is_that_of_the_nearest_folder(tmp_path: Path) -> None:
    free = FolderStorage(tmp_path / "a" / "b").free_bytes()
    assert free is not None and free == pytest.approx(shutil.disk_usage(tmp_path).free, rel=0.05)
