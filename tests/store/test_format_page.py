"""docs/format.md is enough: a store is read here with zarr and NumPy alone, as that page says.

Nothing of the package's reading side is used below "Reading"; what comes out is compared with brute force.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import pytest
import torch
import zarr

from cskd_pipeline.crops.checksum import crop_crc
from cskd_pipeline.encodings import Encoding, FullEncoding, HardEncoding
from cskd_pipeline.samples.sample_index import canonical_order, order_digest
from cskd_pipeline.store import StoreHeader, StoreReader, StoreWriter

SAMPLES, BLOCK, GRID, CLASSES, SIZE = 150, 64, (2, 3), 23, 8
POSITIONS = GRID[0] * GRID[1]
SEEDS = (3, 1_000_000)

# ---------------------------------------------------------------------------------------------- writing


def crops(seed: int) -> tuple[torch.Tensor, torch.Tensor, np.ndarray]:
    """Dense logits, global logits and pixels of a seed's crops."""
    generator = torch.Generator().manual_seed(seed)
    dense_SPC = torch.randn(SAMPLES, POSITIONS, CLASSES, generator=generator) * 3
    dense_SPC[5] = dense_SPC[5, :1]  # a crop of one winner
    pixels = torch.randint(0, 256, (SAMPLES, 3, SIZE, SIZE), generator=generator, dtype=torch.uint8).numpy()
    return dense_SPC, dense_SPC.mean(1), pixels


def write(path: Path, encoding: Encoding, seeds: tuple[int, ...] = SEEDS) -> None:
    header = StoreHeader(
        recipe={"name": "plain", "version": 1, "size": SIZE},
        data={"name": "toy", "split": "train", "samples": SAMPLES, "classes": CLASSES, "digest": "ab12"},
        teacher={"model": "toy", "weights": "cd34"},
        grid=GRID,
        encoding=encoding.to_json(),
        block=BLOCK,
    )
    with StoreWriter(path, header) as writer:
        for seed in seeds:
            dense_SPC, global_SC, pixels = crops(seed)
            for block in range(header.blocks):
                rows = slice(header.rows(block).start, header.rows(block).stop)
                halves = [slice(rows.start, rows.start + 10), slice(rows.start + 10, rows.stop)]
                encoded = encoding.join([encoding.encode(dense_SPC[part], global_SC[part]) for part in halves])
                crc = np.array([crop_crc(crop) for crop in pixels[rows]], np.uint32)
                writer.write_block(seed, block, encoded, crc, versions={"cskd_pipeline": "test"})


# ---------------------------------------------------------------------------------------------- reading


def committed(seed_folder: Path, block: int) -> dict[str, Any]:
    commit: dict[str, Any] = json.loads((seed_folder / "commits" / f"{block:06d}.json").read_text())
    for name, facts in commit["files"].items():
        content = (seed_folder / name).read_bytes()
        assert len(content) == facts["bytes"]
        assert f"{google_crc32c.value(content):08x}" == facts["crc32c"]
    return commit


def hard_winners(row: bytes, spill: bytes, sizes: tuple[int, int, int], k: int) -> list[int]:
    """The winning class of every position, by the page's words."""
    positions, slots, capacity = sizes
    ends = np.cumsum([0, 2 * slots, positions, capacity, 2 * capacity])
    assert len(row) == ends[-1]
    palette, count, code, start = (
        np.frombuffer(row[ends[i] : ends[i + 1]], kind).tolist() for i, kind in enumerate(("<u2", "u1", "u1", "<u2"))
    )
    if count[0] == 255:
        top = palette[0]
        offset, length = palette[1] + 65536 * palette[2], palette[3] + 65536 * palette[4]
        record = spill[offset : offset + length]
        n, m = np.frombuffer(record[:8], "<u4").tolist()
        ends = np.cumsum([8, 2 * n, 4 * positions, 2 * m, 2 * m])
        assert ends[-1] == length
        palette, count, code, start = (
            np.frombuffer(record[ends[i] : ends[i + 1]], kind).tolist()
            for i, kind in enumerate(("<u2", "<u4", "<u2", "<u2"))
        )
        assert palette[0] == top
    winners, at = [], 0
    for changes in count:
        winner = palette[0]
        for change in range(at, at + changes):
            if start[change] < k:
                winner = palette[code[change]]
        winners.append(winner)
        at += changes
    return winners


def fused_argmax(dense_SPC: np.ndarray, global_SC: np.ndarray, k: int) -> np.ndarray:
    r = np.float32(k / 65536)
    fused: np.ndarray = (r * dense_SPC + (np.float32(1) - r) * global_SC[:, None]).argmax(-1)
    return fused


def blocks_of(attributes: dict[str, Any]) -> int:
    return -(-attributes["data"]["samples"] // attributes["block"])


@pytest.mark.parametrize("palette, changes", [(0, 0), (8, 12)], ids=["roomy", "overflowing"])
def test_hard_rows_read_by_the_page_give_the_argmax_at_every_ratio(tmp_path: Path, palette: int, changes: int) -> None:
    path = tmp_path / "labels.zarr"
    write(path, HardEncoding(positions=POSITIONS, classes=CLASSES, palette=palette, changes=changes))

    root = zarr.open_group(path, mode="r", zarr_format=3)
    attributes: dict[str, Any] = dict(root.attrs)
    assert (attributes["format"], attributes["format_version"]) == ("cskd-labels", 1)
    settings = attributes["encoding"]
    assert settings["name"] == "hard" and attributes["grid"] == list(GRID)
    sizes = (settings["positions"], settings["palette"], settings["changes"])
    names = sorted(entry.name for entry in path.iterdir() if entry.name.startswith("seed-"))
    assert names == ["seed-000003", "seed-1000000"]
    spilled = 0
    for name in names:
        dense_SPC, global_SC, pixels = crops(int(name.removeprefix("seed-")))
        rows = np.asarray(root[f"{name}/hard"][:])
        crc = np.asarray(root[f"{name}/crop_crc"][:])
        padded = blocks_of(attributes) * attributes["block"]
        assert rows.shape == (padded, 2 * sizes[1] + sizes[0] + 3 * sizes[2]) and rows.dtype == np.uint8
        assert crc.shape == (padded,) and crc.dtype == np.uint32
        assert (rows[SAMPLES:] == 255).all() and (crc[SAMPLES:] == 2**32 - 1).all()
        assert crc[:SAMPLES].tolist() == [google_crc32c.value(crop.tobytes()) for crop in pixels]
        for block in range(blocks_of(attributes)):
            commit = committed(path / name, block)
            first, stop = commit["rows"]
            assert (commit["seed"], commit["block"]) == (int(name.removeprefix("seed-")), block)
            assert (first, stop) == (block * BLOCK, min(SAMPLES, (block + 1) * BLOCK))
            spill = b""
            if f"hard_spill/{block:06d}/c/0" in commit["files"]:
                spill = np.asarray(root[f"{name}/hard_spill/{block:06d}"][:]).tobytes()
                spilled += 1
            starts = rows[first:stop, -2 * sizes[2] :].copy().view("<u2")
            breakpoints = starts[starts < 65_535][:5].tolist()
            assert breakpoints
            for k in {0, 1, 30_001, 65_535, 65_536, *breakpoints, *(start + 1 for start in breakpoints)}:
                expected = fused_argmax(dense_SPC[first:stop].numpy(), global_SC[first:stop].numpy(), k)
                found = [hard_winners(row.tobytes(), spill, sizes, k) for row in rows[first:stop]]
                assert found == expected.tolist()
    assert (spilled > 0) == (changes > 0)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_full_rows_read_by_the_page_are_the_logits(tmp_path: Path, dtype: str) -> None:
    path = tmp_path / "labels.zarr"
    encoding = FullEncoding(positions=POSITIONS, classes=CLASSES, dtype=dtype)  # type: ignore[arg-type]
    write(path, encoding, seeds=(3,))
    rows = np.asarray(zarr.open_group(path, mode="r", zarr_format=3)["seed-000003/full"][:])
    dense_SPC, global_SC, _ = crops(3)
    assert rows.shape == (192, POSITIONS + 1, CLASSES) and rows.dtype == np.dtype(dtype)
    assert (rows[:SAMPLES, 0] == global_SC.numpy().astype(dtype)).all()
    assert (rows[:SAMPLES, 1:] == dense_SPC.numpy().astype(dtype)).all()
    assert np.isnan(rows[SAMPLES:]).all()
    for block in range(3):
        assert list(committed(path / "seed-000003", block)["files"]) == [f"crop_crc/c/{block}", f"full/c/{block}/0/0"]


def test_arrays_have_the_codecs_that_the_page_names(tmp_path: Path) -> None:
    path = tmp_path / "labels.zarr"
    write(path, HardEncoding(positions=POSITIONS, classes=CLASSES, palette=5, changes=12), seeds=(3,))

    def names(codecs: list[dict[str, Any]]) -> list[str]:
        return [codec["name"] for codec in codecs]

    for array in ("hard", "crop_crc", "hard_spill/000000"):
        metadata = json.loads((path / "seed-000003" / array / "zarr.json").read_text())
        codecs = metadata["codecs"]
        assert metadata["chunk_key_encoding"]["configuration"] == {"separator": "/"}
        if array != "hard_spill/000000":
            (shards,) = codecs
            assert metadata["chunk_grid"]["configuration"]["chunk_shape"][0] == BLOCK
            assert shards["name"] == "sharding_indexed"
            assert shards["configuration"]["index_location"] == "end"
            assert names(shards["configuration"]["index_codecs"]) == ["bytes", "crc32c"]
            codecs = shards["configuration"]["codecs"]
        assert names(codecs) == ["bytes", "zstd"]
        assert codecs[1]["configuration"]["checksum"] is True


def test_a_seed_may_be_copied_to_a_store_with_equal_attributes(tmp_path: Path) -> None:
    encoding = HardEncoding(positions=POSITIONS, classes=CLASSES, palette=5, changes=12)
    for seed in SEEDS:
        write(tmp_path / f"{seed}.zarr", encoding, seeds=(seed,))
    write(tmp_path / "both.zarr", encoding)
    shutil.copytree(tmp_path / "3.zarr/seed-000003", tmp_path / "1000000.zarr/seed-000003")
    copied, both = StoreReader(tmp_path / "1000000.zarr"), StoreReader(tmp_path / "both.zarr")
    assert copied.complete_seeds() == both.complete_seeds() == [3, 1_000_000]
    for block in range(3):
        assert copied.read_block(3, block)[0].rows.tobytes() == both.read_block(3, block)[0].rows.tobytes()


def test_order_and_digest_are_computed_as_the_page_says() -> None:
    import hashlib

    keys, labels = [f"n{i % 3}/bild-ä{i}" for i in range(40)], [i % 3 for i in range(40)]
    order = sorted(range(40), key=lambda i: (hashlib.blake2b(keys[i].encode(), digest_size=16).digest(), keys[i]))
    assert canonical_order(keys).tolist() == order
    text = "".join(f"{keys[i]}\0{labels[i]}\n" for i in order)
    expected = hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
    assert order_digest([keys[i] for i in order], [labels[i] for i in order]) == expected
