"""`verify` names what is wrong with a store, and `repair` makes exactly that well."""

from __future__ import annotations

import functools
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from test_interruptions import on_disk

Source = list[object]


@pytest.fixture
def source(toy: Path, teacher_weights: Path) -> Source:
    return ["--data", toy, "--teacher-weights", teacher_weights, "--workers", "0"]


def flip(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)


def test_exactly_the_bad_blocks_are_made_again(store: Path, finished_store: Path, command: Any, source: Source) -> None:
    shards = ("seed-000000/hard/c/1/0", "seed-000001/soft/c/3/0", "seed-000001/crop_crc/c/0")
    flip(store / shards[0])
    (store / shards[1]).write_bytes(b"")
    (store / shards[2]).unlink()
    (store / "seed-000001/commits/000002.json").unlink()
    untouched = {path: path.stat().st_ino for path in store.rglob("c/*/0") if path.parts[-3:-1] == ("c", "0")}
    found = command("verify", store)
    assert found.code == 3
    for name in shards:
        assert str(store / name) in found.out
    assert "seed 1 is incomplete: 1 of 4 blocks are missing" in found.out
    assert "bad files: 3 and 1 incomplete seeds (1; precompute finishes them" in found.error

    refused = command("repair", store)  # the data is found, but timm's own weights are others
    assert refused.code == 4
    assert all(text in refused.error for text in ("4 blocks", "0 1, 1 0, 1 2, 1 3", "--teacher-weights"))
    mended = command("repair", store, *source)
    assert mended.code == 0, mended.err
    assert [line for line in mended.out.splitlines() if "computed again" in line][:-1] == [
        f"seed {seed} block {block}: computed again" for seed, block in ((0, 1), (1, 0), (1, 2), (1, 3))
    ]
    assert on_disk(store) == on_disk(finished_store)
    assert {path: path.stat().st_ino for path in untouched if "seed-000000" in str(path)} == {
        path: inode for path, inode in untouched.items() if "seed-000000" in str(path)
    }
    assert command("verify", store).code == 0


METADATA = ["zarr.json", "seed-000000/zarr.json", "seed-000001/hard/zarr.json", "seed-000000/crop_crc/zarr.json"]


@pytest.mark.parametrize("name", METADATA)
@pytest.mark.parametrize(
    "damage", [Path.unlink, lambda path: path.write_bytes(b""), flip, lambda p: p.write_text("{}")]
)
def test_attributes_are_written_again_without_data(
    store: Path, finished_store: Path, command: Any, name: str, damage: Callable[[Path], object]
) -> None:
    damage(store / name)
    found = command("verify", store)
    assert (found.code == 3 and str(store / name) in found.out + found.err) or "attributes" in found.error
    mended = command("repair", store)
    assert mended.code == 0, mended.err
    assert str(store / name) + ": written again" in mended.out
    assert "1 attribute files written and 0 blocks computed again" in mended.out
    assert on_disk(store) == on_disk(finished_store)
    again = command("repair", store)
    assert "0 attribute files written and 0 blocks computed again" in again.out


def test_an_attribute_that_was_changed_to_another_is_found_and_taken_from_a_seed(
    store: Path, finished_store: Path, command: Any
) -> None:
    root = store / "zarr.json"
    root.write_text(root.read_text().replace('"precision": "fp32"', '"precision": "fp16"'))
    assert "belongs to a store with other attributes" in command("verify", store).out
    assert command("repair", store).code == 0
    assert on_disk(store) == on_disk(finished_store)


def test_a_root_that_no_seed_repeats_is_left_to_precompute(
    store: Path, finished_store: Path, command: Any, precompute: list[object]
) -> None:
    for path in (store / "zarr.json", *store.glob("seed-*/zarr.json")):
        path.unlink()
    refused = command("repair", store)
    assert refused.code == 3
    assert "the precompute command that made the store writes it again" in refused.error
    assert command(*precompute, "--seeds", "0:2", "--out", store).code == 0
    assert command("repair", store).code == 0
    assert on_disk(store) == on_disk(finished_store)


def test_what_is_none_of_the_stores_is_named_and_left(store: Path, command: Any) -> None:
    foreign = ("notes.txt", "seed-000000/hard/c/9/0", "seed-000000/commits/000009.json", "seed-x/a", "seed-000001/.DS")
    for name in foreign:
        (store / name).parent.mkdir(parents=True, exist_ok=True)
        (store / name).write_text("mine")
    (store / "README.md").write_text("a card")  # belongs to a published store
    (store / ".writing").mkdir(exist_ok=True)
    (store / ".writing/half").write_text("of a process elsewhere")
    report = json.loads(command("verify", store, "--json").out)
    assert {file["path"] for file in report["bad_files"]} == {str(store / name) for name in foreign}
    assert {file["remedy"] for file in report["bad_files"]} == {"remove"}
    mended = command("repair", store)
    assert mended.code == 0
    assert "files that do not belong to it: 5" in mended.out
    for name in foreign:
        assert (store / name).read_text() == "mine"
        (store / name).unlink()
    assert command("verify", store).code == 0


def test_a_seed_of_another_store_is_named_and_made_again(
    store: Path, finished_store: Path, command: Any, precompute: list[object], source: Source, tmp_path: Path
) -> None:
    other = tmp_path / "other.zarr"
    assert command(*precompute, "--seeds", "1", "--recipe-arg", "key=5", "--out", other).code == 0
    shutil.rmtree(store / "seed-000001")
    shutil.copytree(other / "seed-000001", store / "seed-000001")
    found = command("verify", store)
    assert found.code == 3 and "belongs to a store with other attributes" in found.out
    assert command("repair", store, *source).code == 0
    assert on_disk(store) == on_disk(finished_store)


def test_repair_that_is_interrupted_goes_on(
    store: Path, finished_store: Path, command: Any, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    from test_interruptions import failing_after, raising

    from cskd_pipeline.store import StoreWriter

    for block in (0, 1, 2):
        flip(store / f"seed-000000/hard/c/{block}/0")
    with monkeypatch.context() as patched:
        stopping = failing_after(1, StoreWriter.write_block, raising(KeyboardInterrupt()))
        patched.setattr(StoreWriter, "write_block", stopping)
        stopped = command("repair", store, *source)
    assert stopped.code == 75
    assert "2 of 4 blocks are missing" in command("verify", store).out
    assert command("repair", store, *source).code == 0
    assert on_disk(store) == on_disk(finished_store)


def test_the_wrong_data_or_weights_are_refused_and_change_nothing(
    store: Path, odd_toy: Path, command: Any, source: Source, tmp_path: Path
) -> None:
    flip(store / "seed-000000/hard/c/1/0")
    before = on_disk(store)
    refused = command("repair", store, *source, "--data", odd_toy)
    assert refused.code == 4 and "data.digest" in refused.error
    assert on_disk(store) == before


def test_status_shows_who_is_at_work_and_since_when_others_are_silent(store: Path, command: Any) -> None:
    import time

    from cskd_pipeline.storage import FolderStorage
    from cskd_pipeline.store import Claims

    (store / "seed-000001/commits/000002.json").unlink()
    (store / "seed-000001/commits/000003.json").unlink()
    gone = {"name": "elsewhere", "host": "node7", "beat": 4, "crops": 10, "seconds": 5, "seeds": "0:2"}
    (store / ".writers").mkdir(exist_ok=True)
    (store / ".writers/elsewhere.json").write_text(json.dumps({**gone, "unix_time": time.time() - 500}))
    (store / ".writers/broken.json").write_text("{")
    with Claims(FolderStorage(store), seeds="0:3") as claims:
        assert claims.take(1, 3)
        claims.progress(1000)
        claims._beat()
        shown = command("status", store)
    assert shown.code == 0
    for text in (
        "seed    0: 4/4 blocks, 110 crops",
        "seed    1: 2/4 blocks, 1 in work, 1 missing, 64 crops",
        "seed    2: 0/4 blocks, 4 missing, 0 crops",
        "writer on node7 (elsewhere): silent for 500 s",
        f"({claims.name}): ",
        "1 of 3 begun seeds are complete",
        "to go",
    ):
        assert text in shown.out, shown.out
    assert [*(store / ".claims").iterdir()] == []


def test_a_claim_that_a_writer_elsewhere_left_behind_does_not_stop_a_repair(
    store: Path, finished_store: Path, command: Any, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cskd_pipeline.store import Claims

    elsewhere = "0123456789ab-7-7-01234567"
    for folder, name, content in (
        (".claims", "000000-000001", {"writer": elsewhere}),
        (".writers", elsewhere, {"name": elsewhere, "host": "gone", "beat": 1, "crops": 0, "seconds": 1, "seeds": "0"}),
    ):
        (store / folder).mkdir(exist_ok=True)
        (store / folder / f"{name}.json").write_text(json.dumps({**content, "unix_time": 0}))
    flip(store / "seed-000000/hard/c/1/0")
    module = sys.modules["cskd_pipeline.labelling.repair"]  # the package has a function of this name
    monkeypatch.setattr(module, "POLL_S", 0.05)
    monkeypatch.setattr("cskd_pipeline.labelling.units.POLL_S", 0.05)
    short = functools.partial(Claims, beat_s=0.05, expiry_s=0.3)
    monkeypatch.setattr(module, "Claims", short)
    mended = command("repair", store, *source)
    assert mended.code == 0, mended.err
    (store / f".writers/{elsewhere}.json").unlink(missing_ok=True)
    assert on_disk(store) == on_disk(finished_store)


def test_a_block_that_is_well_again_when_its_turn_comes_is_not_touched(
    store: Path, finished_store: Path, command: Any, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cskd_pipeline.runs import repair as repairing

    shard = store / "seed-000000/hard/c/1/0"
    flip(shard)
    real = repairing.store_job

    def slow(*args: Any, **settings: Any) -> Any:
        shutil.copy(finished_store / "seed-000000/hard/c/1/0", shard)  # another writer was quicker
        return real(*args, **settings)

    monkeypatch.setattr(repairing, "store_job", slow)
    before = (store / "seed-000000/commits/000001.json").stat().st_ino
    assert command("repair", store, *source).code == 0
    assert (store / "seed-000000/commits/000001.json").stat().st_ino == before
    assert on_disk(store) == on_disk(finished_store)


def test_attributes_without_what_is_shown_are_one_line(store: Path, command: Any, source: Source) -> None:
    root = store / "zarr.json"
    group = json.loads(root.read_text())
    for name in ("teacher", "recipe"):
        root.write_text(json.dumps({**group, "attributes": {**group["attributes"], name: {}}}))
        for words in (["inspect", store], ["verify", store, *source]):
            refused = command(*words)
            assert refused.code == 3 and f"{name}." in refused.error and "repair" in refused.error
