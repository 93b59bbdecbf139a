"""The store holds what was committed, to the byte, and nothing else."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zarr
from zarr.codecs import ZstdCodec

from cskd_pipeline.batch import Features
from cskd_pipeline.errors import CskdError, DataError, MismatchError, RetryError
from cskd_pipeline.labels import (
    Encoding,
    FullEncoding,
    HardEncoding,
    PooledEncoding,
    Records,
    SoftEncoding,
    TokensEncoding,
    encodings_from_json,
    encodings_to_json,
)
from cskd_pipeline.record import digest_json
from cskd_pipeline.store import StoreHeader, StoreReader, StoreWriter, check_files, default_block, summarise
from cskd_pipeline.store.commit import file_facts as facts_of

SAMPLES, BLOCK, GRID, CLASSES = 150, 64, (2, 3), 11
HARD = {"hard": HardEncoding(positions=6, classes=CLASSES, row_bytes=24)}  # full pages spill
SOFT = {"soft": SoftEncoding(positions=6, classes=CLASSES)}
FULL = {"full": FullEncoding(positions=6, classes=CLASSES, dtype="float32")}
CHANNELS = tuple(range(-30, 30))
FEATURES = {
    "features.pooled": PooledEncoding(positions=6, classes=CLASSES, channels=CHANNELS),
    "features.tokens": TokensEncoding(
        positions=6, classes=CLASSES, channels=(CHANNELS,) * 2, layers=(0, -1), tokens=4, bits=(4, 8)
    ),
}
Encodings = dict[str, Encoding]
VERSIONS = {"cskd_pipeline": "test"}


def header(encodings: Encodings = HARD, **changes: object) -> StoreHeader:
    values = {
        "recipe": {"name": "plain", "version": 1, "size": 16},
        "data": {"name": "toy", "split": "train", "samples": SAMPLES, "classes": CLASSES, "digest": "ab12"},
        "teacher": {"tag": "toy", "weights": "cd34"},
        "grid": GRID,
        "encodings": encodings_to_json(encodings),
        "block": BLOCK,
    }
    return StoreHeader.from_json({**values, **changes})


def block_labels(encodings: Encodings, seed: int, block: int) -> tuple[dict[str, Records], np.ndarray]:
    rows = header(encodings).rows(block)
    generator = torch.Generator().manual_seed(seed * 1000 + block)
    dense = torch.randn(len(rows), 6, CLASSES, generator=generator) * 4
    tokens, words = (torch.randn(len(rows), *shape, generator=generator) for shape in ((2, 6, len(CHANNELS)), (6,)))
    said = dense, dense.mean(1), None, Features(tokens.mean((1, 2)), tokens, words)
    records = {name: encoding.encode(*said) for name, encoding in encodings.items()}
    return records, np.arange(rows.start, rows.stop, dtype=np.uint32) * 7 + seed


def write(path: Path, encodings: Encodings = HARD, seeds: tuple[int, ...] = (0, 5)) -> None:
    writer = StoreWriter(path, header(encodings))
    for seed in seeds:
        for block in range(writer.header.blocks):
            fidelity = {"hard": {"crops": 10 + block, "agreement": 1.0 - block / 8}}
            labels = block_labels(encodings, seed, block)
            writer.write_block(seed, block, *labels, versions=VERSIONS, fidelity=fidelity)


@pytest.mark.parametrize(
    "encodings", [HARD, SOFT, FULL, FEATURES, HARD | SOFT], ids=["hard", "soft", "full", "features", "both"]
)
def test_what_was_written_is_read(tmp_path: Path, encodings: Encodings) -> None:
    write(tmp_path / "s.zarr", encodings)
    store = StoreReader(tmp_path / "s.zarr")
    assert store.seeds() == store.complete_seeds() == [0, 5]
    assert store.encodings == encodings
    for seed in (0, 5):
        for block in range(3):
            expected, crc = block_labels(encodings, seed, block)
            for name in encodings:
                found = store.read(seed, block, name)
                assert len(found) == len(expected[name]) and found.equal(expected[name]).all()
            assert (store.read_crop_crc(seed, block) == crc).all()
    assert (tmp_path / "s.zarr/seed-000000/hard_spill").exists() == ("hard" in encodings)
    assert all(not bad for _, _, bad in check_files(store))


def test_blocks_of_several_pages_are_read(tmp_path: Path) -> None:
    data = {"name": "toy", "split": "train", "samples": 5000, "classes": CLASSES, "digest": "ab12"}
    encoding = HardEncoding(positions=6, classes=CLASSES)
    large = header({"hard": encoding}, data=data, block=4096)
    dense = torch.randn(4096, 6, CLASSES, generator=torch.Generator().manual_seed(1)) * 4
    records = encoding.encode(dense, dense.mean(1))
    writer = StoreWriter(tmp_path / "s.zarr", large)
    writer.write_block(0, 0, {"hard": records}, np.zeros(4096, np.uint32), versions={})
    writer.write_block(0, 1, {"hard": records.take(np.arange(904))}, np.zeros(904, np.uint32), versions={})
    store = StoreReader(tmp_path / "s.zarr")
    for block, count in ((0, 4096), (1, 904)):
        assert store.read(0, block, "hard").equal(records.take(np.arange(count))).all()


def test_a_seed_of_another_store_or_under_another_name_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "s.zarr", seeds=(0,))
    writer = StoreWriter(tmp_path / "t.zarr", header(teacher={"tag": "toy", "weights": "ff00"}))
    for block in range(3):
        writer.write_block(1, block, *block_labels(HARD, 1, block), versions=VERSIONS)
    shutil.copytree(tmp_path / "t.zarr/seed-000001", tmp_path / "s.zarr/seed-000001")
    shutil.copytree(tmp_path / "s.zarr/seed-000000", tmp_path / "s.zarr/seed-000002")
    store = StoreReader(tmp_path / "s.zarr")
    store.require_complete([0])
    for seed, message in ((1, "belongs to a store with other attributes"), (2, "commits block 0 of seed 0, not")):
        with pytest.raises(DataError, match=message):
            store.require_complete([seed])
        with pytest.raises(DataError, match=message):
            store.read(seed, 0, "hard")
    assert {entry.seed for _, _, bad in check_files(store) for entry in bad} == {1, 2}


def test_a_seed_whose_copy_was_cut_off_is_not_complete(tmp_path: Path) -> None:
    write(tmp_path / "s.zarr", seeds=(0,))
    shard = tmp_path / "s.zarr/seed-000000/hard/c/2/0"
    shard.unlink()
    with pytest.raises(DataError, match=r"c/2/0 is damaged \(it is missing, .* were committed\).*repair"):
        StoreReader(tmp_path / "s.zarr").require_complete([0])


def change_commit(path: Path, block: int, **change: object) -> None:
    """Write other values into a commit file, with the digest that belongs to them."""
    file = path / f"seed-000000/commits/{block:06d}.json"
    values = {**json.loads(file.read_text()), **change}
    del values["digest"]
    file.write_text(json.dumps({**values, "digest": digest_json(values)}))


@pytest.mark.parametrize(
    "change",
    [
        {"files": []},
        {"files": {"x": {}}},
        {"rows": 3},
        {"versions": None},
        {"fidelity": {"hard": 1}},
        {"fidelity": {"hard": {"agreement": 1.0}}},
        {"fidelity": {"hard": {"agreement": 1.0, "crops": 0}}},
        {"extra": 1},
    ],
)
def test_a_commit_file_of_another_form_is_an_error(tmp_path: Path, change: dict[str, object]) -> None:
    write(tmp_path / "s.zarr", seeds=(0,))
    change_commit(tmp_path / "s.zarr", 1)
    StoreReader(tmp_path / "s.zarr").read(0, 1, "hard")
    change_commit(tmp_path / "s.zarr", 1, **change)
    with pytest.raises(DataError, match=r"000001\.json cannot be read"):
        StoreReader(tmp_path / "s.zarr").read(0, 1, "hard")
    summary = summarise(StoreReader(tmp_path / "s.zarr"))
    assert summary.seeds[0].blocks == 2 and summary.complete == []
    assert len(summary.unreadable) == 1 and "000001.json cannot be read" in summary.unreadable[0]


def test_a_commit_file_whose_values_were_changed_is_an_error(tmp_path: Path) -> None:
    write(tmp_path / "s.zarr", seeds=(0,))
    file = tmp_path / "s.zarr/seed-000000/commits/000001.json"
    file.write_text(file.read_text().replace('"agreement": 0.875', '"agreement": 0.975'))
    with pytest.raises(DataError, match="changed after it was written"):
        StoreReader(tmp_path / "s.zarr").commit(0, 1)
    bad = [entry.path for _, _, entries in check_files(StoreReader(tmp_path / "s.zarr")) for entry in entries]
    assert bad == [str(file)]


def test_a_commit_that_names_other_rows_or_files_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.zarr"
    write(path, seeds=(0,))
    files = StoreReader(path).commit(0, 0).files
    changes: list[dict[str, object]] = [{"rows": [0, 63]}, {"files": {**files, "/dev/zero": files["crop_crc/c/0"]}}]
    changes += [{"files": {name: facts for name, facts in files.items() if name != left_out}} for left_out in files]
    for change in changes:
        change_commit(path, 0, **change)
        for use in (lambda store: store.require_complete([0]), lambda store: store.read(0, 0, "hard")):
            with pytest.raises(DataError, match=r"000000\.json"):
                use(StoreReader(path))
        bad = [entry.path for _, _, entries in check_files(StoreReader(path)) for entry in entries]
        assert bad == [str(path / "seed-000000/commits/000000.json")]
        change_commit(path, 0, rows=[0, 64], files=files)
    StoreReader(path).require_complete([0])


def test_a_rerun_gives_the_same_files(tmp_path: Path) -> None:
    for name in ("a.zarr", "b.zarr"):
        write(tmp_path / name)
    first = {
        p.relative_to(tmp_path / "a.zarr"): p.read_bytes() for p in (tmp_path / "a.zarr").rglob("*") if p.is_file()
    }
    second = {
        p.relative_to(tmp_path / "b.zarr"): p.read_bytes() for p in (tmp_path / "b.zarr").rglob("*") if p.is_file()
    }
    assert first == second
    assert len(first) > 20


def test_an_uncommitted_block_does_not_exist(tmp_path: Path) -> None:
    write(tmp_path / "s.zarr", seeds=(0,))
    (tmp_path / "s.zarr/seed-000000/commits/000001.json").unlink()
    store = StoreReader(tmp_path / "s.zarr")
    assert store.committed(0) == [0, 2]
    assert store.complete_seeds() == []
    with pytest.raises(DataError, match="not committed"):
        store.read(0, 1, "hard")
    with pytest.raises(DataError, match=r"seed 0 .* incomplete: 2 of 3 blocks.*--seeds 0"):
        store.require_complete([0])


def test_rewriting_a_torn_block_heals_it(tmp_path: Path) -> None:
    write(tmp_path / "s.zarr", seeds=(0,))
    shard = tmp_path / "s.zarr/seed-000000/hard/c/1/0"
    whole = shard.read_bytes()
    (tmp_path / "s.zarr/seed-000000/commits/000001.json").unlink()
    shard.write_bytes(whole[:100])
    writer = StoreWriter(tmp_path / "s.zarr", header())
    assert not writer.is_committed(0, 1)
    writer.write_block(0, 1, *block_labels(HARD, 0, 1), versions=VERSIONS)
    assert shard.read_bytes() == whole
    assert StoreReader(tmp_path / "s.zarr").complete_seeds() == [0]


def test_a_block_that_is_written_again_does_not_exist_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "s.zarr", seeds=(0,))
    writer = StoreWriter(tmp_path / "s.zarr", header())

    def power_cut(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(writer.storage, "write", power_cut)
    with pytest.raises(KeyboardInterrupt):
        writer.write_block(0, 1, *block_labels(HARD, 0, 1), versions=VERSIONS, replace=True)
    assert StoreReader(tmp_path / "s.zarr").committed(0) == [0, 2]


@pytest.mark.parametrize("name", ["hard", "crop_crc"])
@pytest.mark.parametrize(
    ("old", "new"),
    [('"uint8"', '"uint9"'), ("uint", "int"), ("192", "128"), ("64", "32"), ("64", "24"), ("{", "")],
)
def test_damaged_metadata_is_found_and_healed_without_touching_other_blocks(
    tmp_path: Path, name: str, old: str, new: str
) -> None:
    path = tmp_path / "s.zarr"
    write(path, seeds=(0,))
    metadata = path / "seed-000000" / name / "zarr.json"
    whole = metadata.read_text()
    if old not in whole:  # the dtype of the other array
        old, new = '"uint32"', '"uint8"'
    metadata.write_text(whole.replace(old, new))
    found = [entries for _, _, entries in check_files(StoreReader(path))]
    assert all(len(entries) == 1 and str(metadata) in entries[0].found for entries in found)
    writer = StoreWriter(path, header())
    assert writer.write_block(0, 1, *block_labels(HARD, 0, 1), versions=VERSIONS, replace=True)
    assert metadata.read_text() == whole
    store = StoreReader(path)
    assert all(not bad for _, _, bad in check_files(store))
    assert store.read(0, 0, "hard").equal(block_labels(HARD, 0, 0)[0]["hard"]).all()


@pytest.mark.parametrize("content", [None, "", '{"attributes":'])
def test_a_store_that_lost_its_attributes_gets_them_back(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "s.zarr"
    write(path, seeds=(0,))
    file = path / "zarr.json"
    whole = file.read_text()
    if content is None:
        file.unlink()
    else:
        file.write_text(content)
    with pytest.raises(DataError, match=r"zarr\.json is missing or damaged; the labels beside it are not lost"):
        StoreReader(path)
    with pytest.raises(MismatchError, match="made with other settings"):
        StoreWriter(path, header(teacher={"tag": "other", "weights": "00"}))
    writer = StoreWriter(path, header())
    assert writer.is_committed(0, 2)
    assert file.read_text() == whole
    assert all(not bad for _, _, bad in check_files(StoreReader(path)))


def test_data_of_the_same_digest_adds_seeds_whatever_it_is_called_by_now(tmp_path: Path) -> None:
    path = tmp_path / "s.zarr"
    write(path, seeds=(0,))
    before = (path / "zarr.json").read_bytes()
    data = {**header().data, "name": "elsewhere", "split": "all"}
    writer = StoreWriter(path, header(data=data))
    assert writer.header == header()
    for block in range(writer.header.blocks):
        writer.write_block(5, block, *block_labels(HARD, 5, block), versions=VERSIONS)
    assert (path / "zarr.json").read_bytes() == before
    assert all(not bad for _, _, bad in check_files(StoreReader(path)))
    for field, value in (("digest", "00"), ("samples", SAMPLES - 1)):
        with pytest.raises(MismatchError, match=f"data.{field} is"):
            StoreWriter(path, header(data={**data, field: value}))


def test_a_spill_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.zarr"
    write(path, seeds=(0,))
    folder = path / "seed-000000/hard_spill/000000"
    files = StoreReader(path).commit(0, 0).files
    spill = np.asarray(zarr.open_array(folder, mode="r")[:])

    def replace(other: np.ndarray, chunks: tuple[int, ...]) -> None:
        zstd = ZstdCodec(level=1, checksum=True)
        kind: dict[str, Any] = {"dtype": other.dtype, "compressors": [zstd], "fill_value": 255}
        zarr.create_array(folder, shape=other.shape, chunks=chunks, overwrite=True, **kind)[:] = other
        for name in ("zarr.json", "c/0"):
            if (folder / name).is_file():
                files[f"hard_spill/000000/{name}"] = facts_of((folder / name).read_bytes())
        change_commit(path, 0, files=files)

    replace(spill, spill.shape)
    StoreReader(path).read(0, 0, "hard")
    for other, chunks in ((spill.astype(np.float64) + 0.5, spill.shape), (spill, (len(spill) // 2 + 1,))):
        replace(other, chunks)
        with pytest.raises(DataError, match="damaged"):
            StoreReader(path).read(0, 0, "hard")
    metadata = folder / "zarr.json"
    replace(spill, spill.shape)
    for shape in (f"{len(spill)}, 1", f"{1 << 32}"):
        text = metadata.read_text()
        metadata.write_text(text.replace(f"{len(spill)}", shape))
        files["hard_spill/000000/zarr.json"] = facts_of(metadata.read_bytes())
        change_commit(path, 0, files=files)
        with pytest.raises(DataError, match="damaged"):
            StoreReader(path).read(0, 0, "hard")
        metadata.write_text(text)


@pytest.mark.parametrize("file", ["zarr.json", "c/0"])
def test_a_spill_file_of_another_size_than_committed_is_refused(tmp_path: Path, file: str) -> None:
    write(tmp_path / "s.zarr", seeds=(0,))
    with (tmp_path / "s.zarr/seed-000000/hard_spill/000000" / file).open("a") as appended:
        appended.write(" " * 100)
    with pytest.raises(DataError, match=r"bytes, .* were committed"):
        StoreReader(tmp_path / "s.zarr").read(0, 0, "hard")


@pytest.mark.parametrize(
    "change",
    [
        {"data": {"samples": "x"}},
        {"data": {"samples": 150.5}},
        {"data": {"samples": -5}},
        {"data": {"classes": 5}},
        {"data": []},
        {"recipe": []},
        {"grid": [2, 4]},
        {"grid": None},
        {"block": 64.0},
        {"format_version": True},
        {"encodings": {"hard": {"positions": 6, "classes": CLASSES, "row_bytes": False}}},
    ],
)
def test_attributes_that_no_store_has_are_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    write(tmp_path / "s.zarr", seeds=(0,))
    file = tmp_path / "s.zarr/zarr.json"
    group = json.loads(file.read_text())
    for name, value in change.items():
        group["attributes"][name] = {**group["attributes"][name], **value} if isinstance(value, dict) else value
    file.write_text(json.dumps(group))
    with pytest.raises(CskdError, match=r"s\.zarr"):
        StoreReader(tmp_path / "s.zarr")


def committed_files(path: Path) -> list[Path]:
    return sorted(
        path / "seed-000000" / name
        for block in range(3)
        for name in json.loads((path / f"seed-000000/commits/{block:06d}.json").read_text())["files"]
    )


def test_every_kind_of_damage_to_every_file_is_found_and_named(tmp_path: Path) -> None:
    path = tmp_path / "s.zarr"
    write(path, seeds=(0,))
    damages = {
        "flip": lambda raw: raw[: len(raw) // 2] + bytes([raw[len(raw) // 2] ^ 4]) + raw[len(raw) // 2 + 1 :],
        "truncate": lambda raw: raw[:-1],
        "empty": lambda raw: b"",
        "longer": lambda raw: raw + b"\0",
        "delete": None,
    }
    files = committed_files(path)
    assert len(files) == 3 * 2 + 2 * 2  # shards of two fields, spill metadata and chunk of the two full blocks
    for file in files:
        raw = file.read_bytes()
        for damage in damages.values():
            file.unlink()
            if damage is not None:
                file.write_bytes(damage(raw))
            bad = [entry for _, _, entries in check_files(StoreReader(path)) for entry in entries]
            assert [entry.path for entry in bad] == [str(file)]
            file.write_bytes(raw)
    assert all(not bad for _, _, bad in check_files(StoreReader(path)))


def test_reading_a_damaged_shard_is_an_error_that_names_it(tmp_path: Path) -> None:
    path = tmp_path / "s.zarr"
    write(path, seeds=(0,))
    for name in ("hard/c/0/0", "crop_crc/c/0", "hard_spill/000000/c/0"):
        file = path / "seed-000000" / name
        raw = file.read_bytes()
        at = len(raw) // 3
        for broken in (raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :], b"", raw[: len(raw) // 2]):
            file.write_bytes(broken)
            with pytest.raises(DataError, match="damaged") as caught:
                StoreReader(path).read(0, 0, "hard")
                StoreReader(path).read_crop_crc(0, 0)
            assert "seed-000000" in str(caught.value)
        file.write_bytes(raw)
    StoreReader(path).read(0, 0, "hard")


def test_shards_swapped_between_blocks_are_found(tmp_path: Path) -> None:
    path = tmp_path / "s.zarr"
    write(path, seeds=(0,))
    a, b = path / "seed-000000/hard/c/0/0", path / "seed-000000/hard/c/1/0"
    a.rename(tmp_path / "x")
    b.rename(a)
    (tmp_path / "x").rename(b)
    bad = [entry.path for _, _, entries in check_files(StoreReader(path)) for entry in entries]
    assert bad == [str(a), str(b)]


def test_another_request_is_refused_with_both_values(tmp_path: Path) -> None:
    write(tmp_path / "s.zarr", seeds=(0,))
    for changes, message in [
        ({"teacher": {"tag": "other", "weights": "cd34"}}, "teacher.tag is toy in the store, other was asked for"),
        ({"recipe": {"name": "plain", "version": 1, "size": 32}}, "recipe.size is 16 in the store, 32"),
        ({"block": 128}, "block is 64 in the store, 128"),
    ]:
        with pytest.raises(MismatchError, match=message):
            StoreWriter(tmp_path / "s.zarr", header(**changes))
    with pytest.raises(MismatchError, match=r"encodings\.full is absent in the store, .* was asked for"):
        StoreWriter(tmp_path / "s.zarr", header(FULL))
    assert StoreReader(tmp_path / "s.zarr").complete_seeds() == [0]


def test_of_long_settings_the_first_difference_is_named(tmp_path: Path) -> None:
    StoreWriter(tmp_path / "s.zarr", header(FEATURES))
    changed = encodings_to_json(FEATURES)
    changed["features.pooled"]["channels"][17] = 5
    changed["features.tokens"]["channels"][1][3:5] = [7, 8]
    with pytest.raises(MismatchError) as caught:
        StoreWriter(tmp_path / "s.zarr", header(encodings_from_json(changed)))
    assert "encodings.features.pooled.channels[17] is -13 in the store, 5 was asked for; " in str(caught.value)
    assert "encodings.features.tokens.channels[1][3] is -27 in the store, 7 was asked for; " in str(caught.value)
    with pytest.raises(MismatchError, match=r"encodings\.features\.tokens is absent in the store, \{") as caught:
        StoreWriter(tmp_path / "t.zarr", header(HARD))
        StoreWriter(tmp_path / "t.zarr", header(HARD | FEATURES))
    assert len(str(caught.value)) < 600


def test_something_else_at_the_path_is_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/file.txt").write_text("mine")
    (tmp_path / "plain.txt").write_text("mine too")
    for name in ("notes", "plain.txt"):
        with pytest.raises(DataError, match="no label store"):
            StoreWriter(tmp_path / name, header())
        with pytest.raises(DataError, match="not a label store"):
            StoreReader(tmp_path / name)
    assert (tmp_path / "notes/file.txt").read_text() == "mine"
    assert sorted(p.name for p in (tmp_path / "notes").iterdir()) == ["file.txt"]
    with pytest.raises(DataError, match="does not exist"):
        StoreReader(tmp_path / "missing")


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "s.zarr", seeds=(0,))
    metadata = tmp_path / "s.zarr/zarr.json"
    metadata.write_text(metadata.read_text().replace('"format_version": 1', '"format_version": 2'))
    with pytest.raises(MismatchError, match="store format 2, this version reads up to 1"):
        StoreReader(tmp_path / "s.zarr")


@pytest.mark.parametrize("content", ["", "{", "[]", '{"attributes": 3}', '{"attributes": {"format": "cskd-labels"}}'])
def test_damaged_attributes_are_an_error(tmp_path: Path, content: str) -> None:
    write(tmp_path / "s.zarr", seeds=(0,))
    (tmp_path / "s.zarr/zarr.json").write_text(content)
    with pytest.raises(CskdError):
        StoreReader(tmp_path / "s.zarr")


def test_a_full_disk_leaves_the_block_uncommitted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "s.zarr", seeds=(0,))
    writer = StoreWriter(tmp_path / "s.zarr", header())

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RetryError, match="No space left on device"):
        writer.write_block(1, 0, *block_labels(HARD, 1, 0), versions=VERSIONS)
    monkeypatch.undo()
    assert not writer.is_committed(1, 0)
    writer.write_block(1, 0, *block_labels(HARD, 1, 0), versions=VERSIONS)
    assert StoreReader(tmp_path / "s.zarr").seeds() == [0, 1]


def test_summary_counts_what_is_on_disk(tmp_path: Path) -> None:
    path = tmp_path / "s.zarr"
    write(path)
    shutil.rmtree(path / "seed-000005/hard/c/2")
    (path / "seed-000005/commits/000002.json").unlink()
    summary = summarise(StoreReader(path))
    assert [(seed.seed, seed.blocks, seed.crops) for seed in summary.seeds] == [(0, 3, 150), (5, 2, 128)]
    assert summary.complete == [0]
    on_disk = sum(p.stat().st_size for p in path.glob("seed-*/hard/c/*/*"))
    assert summary.bytes_per_crop["hard"] == pytest.approx(on_disk / 278)
    assert summary.bytes_per_crop["total"] == pytest.approx(
        sum(v for k, v in summary.bytes_per_crop.items() if k != "total")
    )
    assert json.loads(json.dumps(summary.to_json()))["complete_seeds"] == [0]
    assert summary.seeds[0].fidelity == {
        "hard": {"crops": 33, "agreement": pytest.approx((10 + 11 * 7 / 8 + 12 * 6 / 8) / 33)}
    }


@pytest.mark.parametrize(
    "samples, row_bytes, block",
    [(500, 660, 1024), (10_000, 660, 1024), (50_000, 660, 4096), (1_281_167, 660, 32768), (1_281_167, 100_000, 2048)],
)
def test_default_block_suits_the_set(samples: int, row_bytes: int, block: int) -> None:
    assert default_block(samples, row_bytes) == block


def test_opening_a_store_does_not_import_torch() -> None:
    import subprocess
    import sys

    code = "import cskd_pipeline.store, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_commit_appears_when_all_else_would_survive_a_loss_of_power(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "s.zarr", seeds=(0,))
    writer = StoreWriter(tmp_path / "s.zarr", header())
    synced: list[int] = []  # inodes, in the order of the calls
    placed: dict[Path, tuple[int, int]] = {}  # file -> its inode, and how many calls came before
    removed: list[int] = []
    sync, place, unlink = os.fsync, Path.replace, Path.unlink

    def recorded_sync(descriptor: int) -> None:
        sync(descriptor)
        synced.append(os.fstat(descriptor).st_ino)

    def recorded_place(self: Path, target: Path) -> Path:
        placed[target] = (self.stat().st_ino, len(synced))
        return place(self, target)

    def recorded_unlink(self: Path, missing_ok: bool = False) -> None:
        if self.name == "000001.json":
            removed.append(len(synced))
        unlink(self, missing_ok)

    monkeypatch.setattr(os, "fsync", recorded_sync)
    monkeypatch.setattr(Path, "replace", recorded_place)
    monkeypatch.setattr(Path, "unlink", recorded_unlink)
    assert writer.write_block(0, 1, *block_labels(HARD, 0, 1), versions=VERSIONS, replace=True)

    seed = tmp_path / "s.zarr/seed-000000"
    commit = seed / "commits/000001.json"
    _, before_commit = placed[commit]
    (gone,) = removed
    assert (seed / "commits").stat().st_ino in synced[gone : min(before for _, before in placed.values())]
    files = json.loads(commit.read_text())["files"]
    assert {seed / name for name in files} | {commit} == {*placed}
    for file, (inode, before) in placed.items():
        assert inode in synced[:before]  # what it holds, before its name
        above = [folder.stat().st_ino for folder in file.parents if folder.is_relative_to(tmp_path / "s.zarr")]
        later = synced[before:] if file == commit else synced[before:before_commit]
        assert {*above} <= {*later}  # all names on the way to it, before the commit
