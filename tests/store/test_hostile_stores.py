"""Stores are data from anywhere: a hostile one is refused in one line, without a wait, a crash or much memory."""

from __future__ import annotations

import contextlib
import json
import os
import struct
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from google_crc32c import value as crc32c
from test_label_store import HARD, SOFT, change_commit, header, write

from cskd_pipeline.errors import CskdError, DataError, UsageError
from cskd_pipeline.labels import HardEncoding
from cskd_pipeline.store import StoreReader, check_files, check_tree, summarise
from cskd_pipeline.store.commit import file_facts
from cskd_pipeline.store.progress import progress_of
from cskd_pipeline.store.shards import decode_into, decode_rows

MOST_BYTES = 32 << 20


@pytest.fixture
def store(tmp_path: Path) -> Path:
    write(tmp_path / "s.zarr", HARD | SOFT, seeds=(0,))
    return tmp_path / "s.zarr"


@pytest.fixture(autouse=True)
def little_memory(store: Path) -> Iterator[None]:
    read_all(store)  # what is imported and compiled on the way does not count
    tracemalloc.start()
    yield
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < MOST_BYTES


def read_all(path: Path) -> None:
    """Whatever a command does with a store of which it knows nothing."""
    reader = StoreReader(path)
    summarise(reader)
    progress_of(reader)
    bad = [file for _, _, files in check_files(reader) for file in files] + [*check_tree(reader)]
    if bad:
        raise DataError(bad[0].found)
    for block in reader.committed(0):
        reader.read_crop_crc(0, block)
        for name in reader.encodings:
            reader.read(0, block, name)


def edit_root(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    group = json.loads((path / "zarr.json").read_text())
    change(group["attributes"])
    (path / "zarr.json").write_text(json.dumps(group))


def test_a_store_that_is_well_is_read(store: Path) -> None:
    read_all(store)


@pytest.mark.parametrize(
    "change",
    [
        lambda a: a["data"].update(samples=10**30),
        lambda a: a["data"].update(samples=1 << 39),
        lambda a: a["data"].update(classes=10**12),
        lambda a: a.update(grid=[1 << 20, 1 << 20]),
        lambda a: a.update(grid=[1000, 1000]),
        lambda a: a.update(block=1 << 40),
        lambda a: a.update(block=1 << 24),
        lambda a: a["encodings"]["hard"].update(row_bytes=1 << 60),
        lambda a: a["encodings"]["hard"].update(row_bytes=1 << 20),
        lambda a: a["encodings"]["hard"].update(positions=1 << 40),
        lambda a: a["encodings"]["soft"].update(palette=1 << 40),
        lambda a: a["encodings"]["soft"].update(k=1 << 40, palette=255),
        lambda a: a["encodings"].update({"../../etc/passwd": {"positions": 6, "classes": 11}}),
        lambda a: a.update(encodings={"full": {"positions": 6, "classes": 11, "dtype": "O"}}),
        lambda a: a.update(recipe="x" * 2_000_000),
        lambda a: a.update(recipe=nested(900)),
        lambda a: a.update(teacher=[1]),
    ],
)
def test_absurd_attributes(store: Path, change: Callable[[dict[str, Any]], object]) -> None:
    edit_root(store, change)
    with pytest.raises(CskdError):
        read_all(store)


def nested(depth: int) -> dict[str, Any]:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return {"x": value}


@pytest.mark.parametrize("text", [b"[" * 200_000, b'{"attributes":' * 50_000, b"\xff\xfe", b"1" * 10_000, b"NaN", b""])
@pytest.mark.parametrize(
    "name",
    ["zarr.json", "seed-000000/zarr.json", "seed-000000/hard/zarr.json", "seed-000000/commits/000001.json"],
)
def test_text_that_is_no_json_of_ours(store: Path, text: bytes, name: str) -> None:
    (store / name).write_bytes(text)
    with pytest.raises(CskdError):
        read_all(store)


@pytest.mark.parametrize("name", ["zarr.json", "seed-000000/hard/c/1/0", "seed-000000/commits/000001.json"])
def test_files_that_are_endless_or_none(store: Path, name: str) -> None:
    (store / name).unlink()
    for make in (
        lambda path: path.symlink_to("/dev/zero"),
        os.mkfifo,
        lambda path: path.mkdir(),
        lambda path: path.symlink_to(path.name),
        lambda path: (path.touch(), os.truncate(path, 1 << 40)),
    ):
        make(store / name)
        if name.startswith("seed-000000/commits") and (store / name).is_dir():
            assert 1 not in StoreReader(store).committed(0)
        else:
            with pytest.raises(CskdError):
                read_all(store)
        (store / name).rmdir() if (store / name).is_dir() else (store / name).unlink()


def rewrite(store: Path, name: str, content: bytes) -> None:
    """Put another file into block 0, and facts that fit it into its commit."""
    (store / "seed-000000" / name).write_bytes(content)
    files = json.loads((store / "seed-000000/commits/000000.json").read_text())["files"]
    change_commit(store, 0, files={**files, name: file_facts(content)})


def shard(frames: list[bytes], *, spans: list[tuple[int, int]] | None = None) -> bytes:
    """A shard of these chunks, with an honest index or another."""
    ends = [sum(map(len, frames[: i + 1])) for i in range(len(frames))]
    spans = spans or [(end - len(frame), len(frame)) for frame, end in zip(frames, ends, strict=True)]
    index = b"".join(struct.pack("<QQ", *span) for span in spans)
    return b"".join(frames) + index + crc32c(index).to_bytes(4, "little")


def bomb(claimed: int | None, *, blocks: int = 20_000) -> bytes:
    """A small frame of run-length blocks that decodes to 2.6 GB, and says so, or says something else, or nothing."""
    head = b"\x28\xb5\x2f\xfd" + (b"\x00\x58" if claimed is None else b"\xe0" + struct.pack("<Q", claimed))
    run = struct.pack("<I", (131_072 << 3) | (1 << 1))[:3] + b"a"
    last = struct.pack("<I", (131_072 << 3) | (1 << 1) | 1)[:3] + b"a"
    return head + run * blocks + last


@pytest.mark.parametrize("claimed", [None, 131_072 * 20_001, 64 * 24, 1 << 62, 0])
@pytest.mark.parametrize("name", ["hard/c/0/0", "hard_spill/000000/c/0"])
def test_decompression_bombs(store: Path, claimed: int | None, name: str) -> None:
    frame = bomb(claimed, blocks=200 if name.startswith("hard/") else 20_000)
    rewrite(store, name, shard([frame]) if name.startswith("hard/") else frame)
    with pytest.raises(DataError, match=r"(?i)chunk|zstd|due"):
        StoreReader(store).read(0, 0, "hard")


def test_a_spill_that_says_it_is_huge(store: Path) -> None:
    metadata = json.loads((store / "seed-000000/hard_spill/000000/zarr.json").read_text())
    for length in (1 << 40, (1 << 30) + 1, 0, -1, 1.5, "x"):
        metadata["shape"] = metadata["chunk_grid"]["configuration"]["chunk_shape"] = [length]
        rewrite(store, "hard_spill/000000/zarr.json", json.dumps(metadata, indent=2).encode())
        with pytest.raises(DataError, match="spill of"):
            StoreReader(store).read(0, 0, "hard")


def test_commit_files_that_promise_huge_or_strange_files(store: Path) -> None:
    path = store / "seed-000000/hard/c/0/0"
    files = json.loads((store / "seed-000000/commits/000000.json").read_text())["files"]
    path.touch()
    os.truncate(path, 1 << 40)
    for facts in ({"bytes": 1 << 40, "crc32c": "00000000"}, {"bytes": -1, "crc32c": "00000000"}):
        change_commit(store, 0, files={**files, "hard/c/0/0": facts})
        with pytest.raises(DataError, match="at most"):
            StoreReader(store).read(0, 0, "hard")
    for name in ("../../outside", "/etc/passwd", "hard/c/0/../0", "seed-000000/hard/c/0/0", "hard/c/00/0"):
        change_commit(store, 0, files={**files, name: {"bytes": 1, "crc32c": "00000000"}})
        with pytest.raises(DataError, match="does not list the files of its block"):
            StoreReader(store).read(0, 0, "hard")


def test_indices_that_point_outside_or_overlap(store: Path) -> None:
    honest = (store / "seed-000000/hard/c/0/0").read_bytes()
    frame = honest[: -16 - 4]
    for spans in ([(1 << 63, 1)], [(0, 1 << 63)], [((1 << 64) - 1, (1 << 64) - 1)], [(0, 0)], [(1, len(frame))]):
        rewrite(store, "hard/c/0/0", shard([frame], spans=spans))
        with pytest.raises(DataError, match="damaged"):
            StoreReader(store).read(0, 0, "hard")
    rewrite(store, "hard/c/0/0", honest)
    StoreReader(store).read(0, 0, "hard")


def test_shards_are_decoded_into_the_memory_that_is_due() -> None:
    import numpy as np
    from numcodecs.zstd import Zstd

    rows = np.arange(64, dtype=np.uint32)
    frames = [Zstd(level=3, checksum=True).encode(rows[start : start + 32]) for start in (0, 32)]
    content = shard(frames)

    def decoded(content: bytes, count: int) -> Any:
        return decode_rows(content, count, block=64, chunk=32, dtype="<u4", row_shape=())

    assert np.array_equal(decoded(content, 64), rows) and np.array_equal(decoded(content, 20), rows[:32])
    for other in (
        frames[0] + frames[1],
        frames[0] * 2,
        frames[0][:-1],
        frames[0][:4],
        b"",
        frames[0][:5] + b"\xff" * 9,
    ):
        with pytest.raises(ValueError):
            decode_into(other, np.empty(32, np.uint32))
    for at in range(len(content)):
        damaged = content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]
        with contextlib.suppress(ValueError):  # but for a bit that says nothing, such as a reserved one
            assert (decoded(damaged, 64) == rows).all()


def test_a_writer_refuses_blocks_that_a_reader_would() -> None:
    large = header({"hard": HardEncoding(positions=6, classes=11, row_bytes=1 << 20)}, block=1 << 16)
    with pytest.raises(UsageError, match="use smaller blocks"):
        large.decoded_encodings()
