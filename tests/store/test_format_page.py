"""docs/format.md is enough: a store is read here with zarr and NumPy alone, as that page says.

The functions below "Reading" use nothing of the package; what comes out is compared with brute force.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import pytest
import torch
import zarr

from cskd_pipeline.batch import Features
from cskd_pipeline.crops.checksum import crop_crc
from cskd_pipeline.crops.draws import draw_positions
from cskd_pipeline.crops.recipe import RECIPES
from cskd_pipeline.data.sample_index import canonical_order, order_digest
from cskd_pipeline.labels import (
    Encoding,
    FullEncoding,
    HardEncoding,
    PooledEncoding,
    SoftEncoding,
    TokensEncoding,
    encodings_to_json,
    measure_channels,
)
from cskd_pipeline.losses import densify, on_palette
from cskd_pipeline.store import StoreHeader, StoreReader, StoreWriter

SAMPLES, BLOCK, GRID, CLASSES, SIZE = 150, 64, (2, 3), 23, 8
POSITIONS = GRID[0] * GRID[1]
SEEDS = (3, 1_000_000)
LAYERS, WIDTH = (0, 2, -1), 9

# ---------------------------------------------------------------------------------------------- writing


def crops(seed: int) -> tuple[torch.Tensor, torch.Tensor, np.ndarray]:
    """Dense logits, global logits and pixels of a seed's crops."""
    generator = torch.Generator().manual_seed(seed)
    dense_SPC = torch.randn(SAMPLES, POSITIONS, CLASSES, generator=generator) * 3
    dense_SPC[5] = dense_SPC[5, :1]  # a crop of one winner
    pixels = torch.randint(0, 256, (SAMPLES, 3, SIZE, SIZE), generator=generator, dtype=torch.uint8).numpy()
    return dense_SPC, dense_SPC.mean(1), pixels


def features(seed: int) -> Features:
    """Features of a seed's crops: an odd width, one giant channel, a vector of zeros."""
    generator = torch.Generator().manual_seed(seed)
    tokens_SLPD = torch.randn(SAMPLES, len(LAYERS), POSITIONS, WIDTH, generator=generator)
    tokens_SLPD[..., 3] *= 40
    tokens_SLPD[7, 0] = 0
    words_SP = draw_positions(RECIPES["plain"], seed, np.arange(SAMPLES), positions=POSITIONS)
    return Features(tokens_SLPD[:, 0].mean(1), tokens_SLPD, torch.from_numpy(words_SP))


def write(path: Path, *encodings: Encoding, seeds: tuple[int, ...] = SEEDS) -> None:
    named = {encoding.name: encoding for encoding in encodings}
    header = StoreHeader(
        recipe={"name": "plain", "version": 1, "size": SIZE},
        data={"name": "Größe", "split": "train", "samples": SAMPLES, "classes": CLASSES, "digest": "ab12"},
        teacher={"model": "toy", "weights": "cd34"},
        grid=GRID,
        encodings=encodings_to_json(named),
        block=BLOCK,
    )
    writer = StoreWriter(path, header)
    for seed in seeds:
        (dense_SPC, global_SC, pixels), shown = crops(seed), features(seed)
        for block in range(header.blocks):
            rows = slice(header.rows(block).start, header.rows(block).stop)
            halves = [slice(rows.start, rows.start + 10), slice(rows.start + 10, rows.stop)]
            records = {}
            for name, encoding in named.items():
                parts = [
                    encoding.encode(
                        dense_SPC[part],
                        global_SC[part],
                        None,
                        Features(*(each[part] for each in shown if each is not None)),
                    )
                    for part in halves
                ]
                records[name] = type(parts[0]).joined(parts)
            crc = np.array([crop_crc(crop) for crop in pixels[rows]], np.uint32)
            writer.write_block(seed, block, records, crc, versions={"cskd_pipeline": "test"})


# ---------------------------------------------------------------------------------------------- reading


def committed(seed_folder: Path, block: int) -> dict[str, Any]:
    commit: dict[str, Any] = json.loads((seed_folder / "commits" / f"{block:06d}.json").read_text())
    others = {key: value for key, value in commit.items() if key != "digest"}
    text = json.dumps(others, sort_keys=True, separators=(",", ":")).encode("ascii")
    assert commit["digest"] == hashlib.blake2b(text, digest_size=8).hexdigest()
    for name, facts in commit["files"].items():
        content = (seed_folder / name).read_bytes()
        assert len(content) == facts["bytes"]
        assert f"{google_crc32c.value(content):08x}" == facts["crc32c"]
    return commit


Crop = tuple[list[int], list[list[tuple[int, int]]]]
"""A crop's palette, and for each position its changes (start, code)."""


def hard_page(page: bytes, spill: bytes) -> list[Crop]:
    """The records of a page, by the page's words."""
    n, entries, changes, flags, offset, length = np.frombuffer(page[:24], "<u4").tolist()
    body = spill[offset : offset + length] if flags & 4 else page[24:]
    at = 0

    def take(count: int) -> list[int]:
        nonlocal at
        at += count
        return list(body[at - count : at])

    def numbers(count: int, wide: int) -> list[int]:
        low = take(count)
        return [a + 256 * b for a, b in zip(low, take(count), strict=True)] if wide else low

    sizes = [size + 1 for size in numbers(n, flags & 2)]
    counts = numbers(n * POSITIONS, flags & 1)
    high = take(entries)
    codes = numbers(changes, flags & 2)
    palettes = [a + 256 * b for a, b in zip(take(entries), high, strict=True)]
    high = take(changes)
    starts = [a + 256 * b for a, b in zip(take(changes), high, strict=True)]
    assert at == length or not flags & 4
    crops: list[Crop] = []
    for crop, size in enumerate(sizes):
        palette, palettes = palettes[:size], palettes[size:]
        positions = []
        for count in counts[crop * POSITIONS : (crop + 1) * POSITIONS]:
            positions.append(list(zip(starts[:count], codes[:count], strict=True)))
            starts, codes = starts[count:], codes[count:]
        crops.append((palette, positions))
    assert not palettes and not starts
    return crops


def hard_winners(crop: Crop, k: int) -> list[int]:
    """The winning class of every position, by the page's words."""
    palette, positions = crop
    return [palette[([0] + [code for start, code in changes if start < k])[-1]] for changes in positions]


def fused_argmax(dense_SPC: np.ndarray, global_SC: np.ndarray, k: int) -> np.ndarray:
    r = np.float32(k / 65536)
    fused: np.ndarray = (r * dense_SPC + (np.float32(1) - r) * global_SC[:, None]).argmax(-1)
    return fused


def blocks_of(attributes: dict[str, Any]) -> int:
    return -(-attributes["data"]["samples"] // attributes["block"])


@pytest.mark.parametrize("row_bytes", [0, 24], ids=["roomy", "overflowing"])
def test_hard_pages_read_by_the_page_give_the_argmax_at_every_ratio(tmp_path: Path, row_bytes: int) -> None:
    path = tmp_path / "labels.zarr"
    write(path, HardEncoding(positions=POSITIONS, classes=CLASSES, row_bytes=row_bytes))

    root = zarr.open_group(path, mode="r", zarr_format=3)
    attributes: dict[str, Any] = dict(root.attrs)
    assert (attributes["format"], attributes["format_version"]) == ("cskd-labels", 1)
    settings = attributes["encodings"]["hard"]
    assert settings["positions"] == POSITIONS and attributes["grid"] == list(GRID)
    names = sorted(entry.name for entry in path.iterdir() if entry.name.startswith("seed-"))
    assert names == ["seed-000003", "seed-1000000"]
    spilled = 0
    for name in names:
        dense_SPC, global_SC, pixels = crops(int(name.removeprefix("seed-")))
        array = root[f"{name}/hard"]
        assert isinstance(array, zarr.Array)
        rows = np.asarray(array[:])
        crc = np.asarray(root[f"{name}/crop_crc"][:])
        padded = blocks_of(attributes) * attributes["block"]
        assert rows.shape == (padded, settings["row_bytes"]) and rows.dtype == np.uint8
        assert crc.shape == (padded,) and crc.dtype == np.uint32
        assert (crc[SAMPLES:] == 2**32 - 1).all()
        assert crc[:SAMPLES].tolist() == [google_crc32c.value(crop.tobytes()) for crop in pixels]
        page = array.chunks[0]
        for block in range(blocks_of(attributes)):
            commit = committed(path / name, block)
            first, stop = commit["rows"]
            assert (commit["seed"], commit["block"]) == (int(name.removeprefix("seed-")), block)
            assert (first, stop) == (block * BLOCK, min(SAMPLES, (block + 1) * BLOCK))
            spill = b""
            if f"hard_spill/{block:06d}/c/0" in commit["files"]:
                spill = np.asarray(root[f"{name}/hard_spill/{block:06d}"][:]).tobytes()
                spilled += 1
            records = [
                crop for at in range(first, stop, page) for crop in hard_page(rows[at : at + page].tobytes(), spill)
            ]
            assert len(records) == stop - first
            breakpoints = [start for _, positions in records for changes in positions for start, _ in changes][:5]
            assert breakpoints
            for k in {0, 1, 30_001, 65_535, 65_536, *breakpoints, *(start + 1 for start in breakpoints)}:
                expected = fused_argmax(dense_SPC[first:stop].numpy(), global_SC[first:stop].numpy(), k)
                assert [hard_winners(record, k) for record in records] == expected.tolist()
                assert [palette[0] for palette, _ in records] == global_SC[first:stop].argmax(1).tolist()
    assert (spilled > 0) == (row_bytes > 0)


SoftRow = dict[str, list[int]]


def soft_rows(page: bytes, rows: int, settings: dict[str, Any]) -> list[SoftRow]:
    """The rows of the crops of a page of `rows` chunk rows, by the page's words."""
    slots, keep, shared, _, _ = soft_sizes(settings)
    fields = [("shared", 1), ("others", 1), ("palette_low", slots), ("palette_high", slots), ("global_tail", 1)]
    fields += [("global_step", shared - 1), ("tail", POSITIONS)]
    fields += [(f"slot{i}", POSITIONS) for i in range(keep)] + [(f"step{i}", POSITIONS) for i in range(1, keep)]
    assert len(page) == rows * sum(size for _, size in fields)
    crops: list[SoftRow] = [{} for _ in range(rows)]
    at = 0
    for name, size in fields:
        for crop in crops:
            crop[name] = list(page[at : at + size])
            at += size
    return crops


def soft_sizes(settings: dict[str, Any]) -> tuple[int, int, int, int, float]:
    slots = min(settings["palette"], CLASSES)
    n = 2 ** settings["bits"]
    return slots, min(settings["k"], slots), min(settings["global_k"], CLASSES), n, 16 / n


def soft_logarithms(row: SoftRow, settings: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """g' [C] and d' [P, C] of a crop, by the page's words."""
    _, keep, _, n, step = soft_sizes(settings)
    (shared,), (others,) = row["shared"], row["others"]
    codes = [low + 256 * high for low, high in zip(row["palette_low"], row["palette_high"], strict=True)]
    classes, last = codes[:shared], -1
    for code in codes[shared : shared + others]:
        last += code + 1
        classes.append(last)
    assert len(set(classes)) == len(classes) and max(classes) < CLASSES
    depth = np.cumsum([0, *row["global_step"][: shared - 1]]) * -step
    rest = min(step * (row["global_tail"][0] - n) - np.log(CLASSES - shared), depth[-1]) if shared < CLASSES else 0.0
    global_C = np.full(CLASSES, rest)
    global_C[classes[:shared]] = depth
    dense_PC = np.empty((POSITIONS, CLASSES))
    for p in range(POSITIONS):
        kept = [classes[row[f"slot{i}"][p]] for i in range(keep) if row[f"slot{i}"][p] != 255]
        depth = np.cumsum([0, *(row[f"step{i}"][p] for i in range(1, len(kept)))]) * -step
        free = np.setdiff1d(np.arange(CLASSES), kept)
        prior = 0.55 * global_C[free]
        tail = step * (row["tail"][p] - n) + prior - np.log(np.exp(prior).sum())
        dense_PC[p, free] = np.minimum(tail, depth[-1]) if kept else tail
        dense_PC[p, kept] = depth[: len(kept)]
    return global_C, dense_PC


def test_soft_pages_read_by_the_page_are_near_the_logits_and_what_losses_see(tmp_path: Path) -> None:
    path = tmp_path / "labels.zarr"
    hard, soft = (kind(positions=POSITIONS, classes=CLASSES) for kind in (HardEncoding, SoftEncoding))
    soft = dataclasses.replace(soft, k=4, global_k=6)
    write(path, hard, soft, seeds=(3,))
    root = zarr.open_group(path, mode="r", zarr_format=3)
    attributes: dict[str, Any] = dict(root.attrs)
    settings = attributes["encodings"]["soft"]
    array = root["seed-000003/soft"]
    assert isinstance(array, zarr.Array) and array.dtype == np.uint8
    rows = np.asarray(array[:])
    page = array.chunks[0]
    dense_SPC, global_SC, _ = (np.asarray(x) for x in crops(3))
    store = StoreReader(path)
    softmax = np.exp(dense_SPC - np.logaddexp.reduce(dense_SPC, axis=-1, keepdims=True))
    for block in range(blocks_of(attributes)):
        first, stop = committed(path / "seed-000003", block)["rows"]
        found = [
            row for at in range(first, stop, page) for row in soft_rows(rows[at : at + page].tobytes(), page, settings)
        ][: stop - first]
        entries = store.encodings["soft"].tabulate(store.read(3, block, "soft"), ratio_steps=0)
        targets = store.encodings["soft"].targets(entries, grid=GRID, ratio_steps=40_000, device=torch.device("cpu"))
        assert targets.sparse is not None
        fused_BCP = densify(on_palette(targets.sparse, ratio_steps=40_000), classes=CLASSES).numpy()
        for i, row in enumerate(found):
            global_C, dense_PC = soft_logarithms(row, settings)
            decoded = np.exp(dense_PC - np.logaddexp.reduce(dense_PC, axis=-1, keepdims=True))
            truth = softmax[first + i]
            assert (truth * np.log(truth / decoded)).sum(-1).max() < 0.5
            assert (np.take_along_axis(dense_PC, truth.argmax(-1)[:, None], 1)[:, 0] == dense_PC.max(-1)).all()
            assert global_C[global_SC[first + i].argmax()] == global_C.max()
            r = 40_000 / 65_536
            logits = r * dense_PC + (1 - r) * global_C
            expected = logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)
            np.testing.assert_allclose(fused_BCP[i].T, expected, atol=2e-5)


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


CONSTANTS = np.array([0x3F800000, 0x3F9837F0, 0x3FB504F3, 0x3FD744FD], np.uint32).view(np.float32)


def scales_of_channels(channels: list[int]) -> np.ndarray:
    """w, by the page's words."""
    return np.array([CONSTANTS[k % 4] * np.float32(2.0 ** (k // 4)) for k in channels], np.float32)


def row_bytes(bits: int) -> int:
    return (WIDTH + 1) // 2 if bits == 4 else WIDTH


def vector(scale: bytes, codes: bytes, channels: list[int], bits: int) -> np.ndarray:
    """A vector of fp32, by the page's words."""
    levels, width = 2 ** (bits - 1) - 1, len(channels)
    numbers = list(codes)
    if bits == 4:
        numbers = [half for byte in codes for half in (byte % 16, byte // 16)]
        assert len(codes) == (width + 1) // 2 and (width % 2 == 0 or numbers[-1] == 7)
    numbers = numbers[:width]
    assert len(numbers) == width and max(numbers) <= 2 * levels
    (s,) = np.frombuffer(scale, "<f2").astype(np.float32)
    assert np.isfinite(s) and s >= 0
    found: np.ndarray = (np.array(numbers, np.float32) - np.float32(levels)) * s * scales_of_channels(channels)
    assert found.dtype == np.float32
    return found


def written(v: np.ndarray, channels: list[int], bits: int) -> tuple[bytes, bytes]:
    """Scale and codes of a vector, by the page's words about writers."""
    levels = 2 ** (bits - 1) - 1
    u = v / scales_of_channels(channels)
    s = np.float16(np.abs(u).max() / np.float32(levels))
    codes = [levels] * len(u)
    if s > 0:
        codes = [levels + int(np.clip(np.rint(value / np.float32(s)), -levels, levels)) for value in u]
    if bits == 4:
        codes = [*codes, 7] if len(codes) % 2 else codes
        codes = [low + 16 * high for low, high in zip(codes[::2], codes[1::2], strict=True)]
    return s.tobytes(), bytes(codes)


def position_words(seed: int, sample: int) -> list[int]:
    """Random words of the positions, by docs/recipe.md."""
    digest = hashlib.blake2b(f"cskd-pipeline/crops/1/0/{seed}".encode(), digest_size=8).digest()
    drawn: list[int] = []
    for block in range(-(-POSITIONS // 4)):
        key = list(np.frombuffer(digest, "<u4").tolist())
        c = [sample % 2**32, sample // 2**32, 7 * 65536 + block, 0]
        for _ in range(10):
            p, q = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
            c = [q >> 32 ^ c[1] ^ key[0], q % 2**32, p >> 32 ^ c[3] ^ key[1], p % 2**32]
            key = [(key[0] + 0x9E3779B9) % 2**32, (key[1] + 0xBB67AE85) % 2**32]
        drawn += c
    return drawn[:POSITIONS]


@pytest.mark.parametrize("bits", [4, 6, 8])
def test_pooled_rows_read_by_the_page_are_near_the_features_and_what_losses_see(tmp_path: Path, bits: int) -> None:
    path = tmp_path / "labels.zarr"
    said_SD = features(3).pooled_BD
    assert said_SD is not None
    channels = measure_channels(said_SD)
    write(path, PooledEncoding(positions=POSITIONS, classes=CLASSES, channels=channels, bits=bits), seeds=(3,))
    root = zarr.open_group(path, mode="r", zarr_format=3)
    attributes: dict[str, Any] = dict(root.attrs)
    settings = attributes["encodings"]["features.pooled"]
    assert len(settings["channels"]) == WIDTH and settings["bits"] == bits
    rows = np.asarray(root["seed-000003/features.pooled"][:])
    assert rows.shape == (192, 2 + row_bytes(bits)) and rows.dtype == np.uint8
    assert (rows[SAMPLES:] == 255).all()
    found_SD = np.stack(
        [vector(row[:2].tobytes(), row[2:].tobytes(), settings["channels"], bits) for row in rows[:SAMPLES]]
    )
    for row, said_D in zip(rows[:SAMPLES], said_SD.numpy(), strict=True):
        assert b"".join(written(said_D, settings["channels"], bits)) == row.tobytes()
    error_SD = np.abs(found_SD - said_SD.numpy()) / scales_of_channels(settings["channels"])
    assert error_SD.max() < {4: 0.6, 6: 0.14, 8: 0.04}[bits]
    store = StoreReader(path)
    for block in range(blocks_of(attributes)):
        commit = committed(path / "seed-000003", block)
        assert list(commit["files"]) == [f"crop_crc/c/{block}", f"features.pooled/c/{block}/0"]
        entries = store.encodings["features.pooled"].tabulate(store.read(3, block, "features.pooled"), ratio_steps=0)
        targets = store.encodings["features.pooled"].targets(
            entries, grid=GRID, ratio_steps=0, device=torch.device("cpu")
        )
        assert targets.pooled_BD is not None
        assert targets.pooled_BD.numpy().tobytes() == found_SD[slice(*commit["rows"])].tobytes()


@pytest.mark.parametrize("tokens", [4, 0])
def test_token_rows_are_those_that_the_page_writes_and_what_losses_see(tmp_path: Path, tokens: int) -> None:
    path, device = tmp_path / "labels.zarr", torch.device("cpu")
    said_SLPD = features(3).tokens_BLPD
    assert said_SLPD is not None
    measured = tuple(measure_channels(layer_SPD.flatten(0, 1)) for layer_SPD in said_SLPD.unbind(1))
    encoding = TokensEncoding(
        positions=POSITIONS, classes=CLASSES, channels=measured, layers=LAYERS, tokens=tokens, bits=(4, 8, 5)
    )
    write(path, encoding, seeds=(3,))
    root = zarr.open_group(path, mode="r", zarr_format=3)
    attributes: dict[str, Any] = dict(root.attrs)
    settings = attributes["encodings"]["features.tokens"]
    assert settings["layers"] == list(LAYERS) and settings["bits"] == [4, 8, 5] and len(settings["channels"]) == 3
    rows = np.asarray(root["seed-000003/features.tokens"][:])
    n = settings["tokens"] or POSITIONS
    sizes = [row_bytes(bits) for bits in settings["bits"]]
    assert rows.shape == (192, 1 + sum(n * (2 + size) for size in sizes)) and rows.dtype == np.uint8
    assert (rows[SAMPLES:] == 255).all()
    found_SLnD = np.empty((SAMPLES, len(LAYERS), n, WIDTH), np.float32)
    for sample, row in enumerate(rows[:SAMPLES]):
        kept = [p for p in range(8) if row[p // 8] >> p % 8 & 1]
        drawn = position_words(3, sample)
        assert kept == sorted(sorted(range(POSITIONS), key=lambda p: (drawn[p], p))[:n])
        at = 1
        for layer, (channels, bits, size) in enumerate(zip(settings["channels"], settings["bits"], sizes, strict=True)):
            scales, codes = row[at : at + 2 * n].tobytes(), row[at + 2 * n : at + n * (2 + size)].tobytes()
            at += n * (2 + size)
            for i, p in enumerate(kept):
                stored = scales[2 * i : 2 * i + 2], codes[i * size : (i + 1) * size]
                assert stored == written(said_SLPD[sample, layer, p].numpy(), channels, bits)
                found_SLnD[sample, layer, i] = vector(*stored, channels, bits)
        assert at == len(row)
    store = StoreReader(path)
    for block in range(blocks_of(attributes)):
        rows_of = slice(*committed(path / "seed-000003", block)["rows"])
        entries = store.encodings["features.tokens"].tabulate(store.read(3, block, "features.tokens"), ratio_steps=0)
        targets = store.encodings["features.tokens"].targets(entries, grid=GRID, ratio_steps=0, device=device)
        assert targets.tokens is not None
        assert targets.tokens.values_BLnD.numpy().tobytes() == found_SLnD[rows_of].tobytes()


def test_arrays_have_the_codecs_that_the_page_names(tmp_path: Path) -> None:
    path = tmp_path / "labels.zarr"
    write(path, HardEncoding(positions=POSITIONS, classes=CLASSES, row_bytes=24), seeds=(3,))

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
    encoding = HardEncoding(positions=POSITIONS, classes=CLASSES, row_bytes=24)
    for seed in SEEDS:
        write(tmp_path / f"{seed}.zarr", encoding, seeds=(seed,))
    write(tmp_path / "both.zarr", encoding)
    shutil.copytree(tmp_path / "3.zarr/seed-000003", tmp_path / "1000000.zarr/seed-000003")
    copied, both = StoreReader(tmp_path / "1000000.zarr"), StoreReader(tmp_path / "both.zarr")
    assert copied.complete_seeds() == both.complete_seeds() == [3, 1_000_000]
    for block in range(3):
        assert copied.read(3, block, "hard").equal(both.read(3, block, "hard")).all()


def test_order_and_digest_are_computed_as_the_page_says() -> None:
    import hashlib

    keys, labels = [f"n{i % 3}/bild-ä{i}" for i in range(40)], [i % 3 for i in range(40)]
    order = sorted(range(40), key=lambda i: (hashlib.blake2b(keys[i].encode(), digest_size=16).digest(), keys[i]))
    assert canonical_order(keys).tolist() == order
    text = "".join(f"{keys[i]}\0{labels[i]}\n" for i in order)
    expected = hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
    assert order_digest([keys[i] for i in order], [labels[i] for i in order]) == expected
