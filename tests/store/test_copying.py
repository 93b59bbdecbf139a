"""A copy of a store is that store, or it is refused; what is interrupted goes on."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from test_label_store import FULL, HARD, SOFT, change_commit, header, write

from cskd_pipeline.errors import DataError, MismatchError, StoppedError, UsageError
from cskd_pipeline.labels import HardEncoding
from cskd_pipeline.publish.copying import Copied, copy_seeds, require_apart
from cskd_pipeline.storage import FolderStorage, Storage, open_storage
from cskd_pipeline.store import StoreReader, check_files, check_tree, summarise
from cskd_pipeline.store.metadata import array_text


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Seeds 0 and 5 of three blocks each, in two encodings, one of which spills."""
    write(tmp_path / "s.zarr", HARD | SOFT)
    return tmp_path / "s.zarr"


def copy(source: Path | str, target: Path | str, seeds: tuple[int, ...] = (0, 5), **settings: object) -> Copied:
    return copy_seeds(StoreReader(source), open_storage(target), [*seeds], **settings)  # type: ignore[arg-type]


def contents(storage: Storage) -> dict[str, bytes]:
    return {file.name: storage.read(file.name, limit=1 << 30) for file in storage.files()}


def is_well(location: Path | str) -> bool:
    store = StoreReader(location)
    return not [*check_tree(store)] and not any(bad for _, _, bad in check_files(store))


def test_a_copy_has_the_same_files_in_folders_and_buckets(source: Path, tmp_path: Path, s3: str) -> None:
    original = contents(open_storage(source))
    assert any("hard_spill" in name for name in original)
    size = sum(
        len(content) for name, content in original.items() if not name.endswith(".json") or "/hard_spill/0" in name
    )
    for origin, place in (
        (source, tmp_path / "t.zarr"),
        (source, f"{s3}/a/t.zarr"),
        (f"{s3}/a/t.zarr", tmp_path / "u"),
    ):
        assert copy(origin, place) == Copied(6, size, 0)
        assert contents(open_storage(place)) == original
        assert summarise(StoreReader(place)).digest == summarise(StoreReader(source)).digest
        assert is_well(place)


def test_a_copy_of_some_encodings_is_the_store_that_would_have_been_made(source: Path, tmp_path: Path) -> None:
    write(tmp_path / "hard.zarr", HARD)
    copy(source, tmp_path / "t.zarr", encodings=["hard"])
    assert contents(open_storage(tmp_path / "t.zarr")) == contents(open_storage(tmp_path / "hard.zarr"))
    copy(source, tmp_path / "soft.zarr", encodings=["soft"])
    assert is_well(tmp_path / "soft.zarr")
    store = StoreReader(tmp_path / "soft.zarr")
    assert [*store.encodings] == ["soft"]
    assert (
        store.commit(0, 1).fidelity == {} and store.commit(0, 1).versions == StoreReader(source).commit(0, 1).versions
    )
    for block in range(3):
        assert store.read(5, block, "soft").equal(StoreReader(source).read(5, block, "soft")).all()
        assert (store.read_crop_crc(5, block) == StoreReader(source).read_crop_crc(5, block)).all()


def test_seeds_are_added_to_a_copy(source: Path, tmp_path: Path) -> None:
    said: list[str] = []
    assert copy(source, tmp_path / "t.zarr", (5,)).blocks == 3
    assert StoreReader(tmp_path / "t.zarr").seeds() == [5]
    steps: list[tuple[int, int]] = []
    done = copy(source, tmp_path / "t.zarr", report=said.append, progress=lambda *step: steps.append(step))
    assert (done.blocks, done.present) == (3, 3)
    assert said == ["3 of 6 blocks are there already; 3 to copy"]
    assert steps[0] == (0, done.bytes) and steps[-1] == (done.bytes, done.bytes) and steps == sorted(steps)
    assert contents(open_storage(tmp_path / "t.zarr")) == contents(open_storage(source))


@pytest.mark.parametrize(("threads", "writes"), [(1, 13), (8, 36)])
def test_an_interruption_leaves_whole_blocks_and_the_same_call_goes_on(
    threads: int, writes: int, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cskd_pipeline.publish.copying.THREADS", threads)
    original, target = contents(open_storage(source)), tmp_path / "t.zarr"
    write_file, whole = FolderStorage.write, [0]
    while True:
        left = iter(range(writes))  # enough for a block in the first run, and for the rest in some more

        def cut(self: FolderStorage, name: str, *args: Any, left: Iterator[int] = left, **settings: Any) -> None:
            if next(left, None) is None:
                raise KeyboardInterrupt
            write_file(self, name, *args, **settings)

        with monkeypatch.context() as patch:
            patch.setattr(FolderStorage, "write", cut)
            try:
                copy(source, target)
                break
            except StoppedError as error:
                made = re.match(
                    r"stopped; (\d) of \d blocks were copied to .* run the same command to continue", str(error)
                )
        store = StoreReader(target)
        assert all(not bad for _, _, bad in check_files(store))
        whole.append(len(store.committed(0) + store.committed(5)))
        assert made is not None and int(made[1]) == whole[-1] - whole[-2]
        assert len(whole) < 20
    assert len(whole) >= 2 and contents(open_storage(target)) == original


def test_a_block_of_which_a_file_is_gone_is_copied_again(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "t.zarr"
    copy(source, target)
    (target / "seed-000000/soft/c/1/0").unlink()
    (target / "seed-000000/commits/000002.json").write_text("{")
    with (target / "seed-000005/hard_spill/000000/c/0").open("a") as longer:
        longer.write("x")
    (target / "seed-000005/hard/zarr.json").unlink()
    assert copy(source, target).blocks == 3
    assert contents(open_storage(target)) == contents(open_storage(source))


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("seed-000005/soft/c/1/0", lambda raw: raw[:40] + bytes([raw[40] ^ 1]) + raw[41:]),
        ("seed-000005/soft/c/1/0", lambda raw: raw[:-1]),
        ("seed-000005/crop_crc/c/2", lambda raw: b""),
        ("seed-000005/hard_spill/000000/c/0", None),
        ("seed-000005/hard/zarr.json", lambda raw: b"{"),
        ("seed-000005/commits/000001.json", lambda raw: raw[:50]),
    ],
)
def test_a_damaged_source_is_named_and_its_block_is_not_copied(
    name: str, damage: Callable[[bytes], bytes] | None, source: Path, tmp_path: Path
) -> None:
    file = source / name
    raw = file.read_bytes()
    file.unlink()
    if damage is not None:
        file.write_bytes(damage(raw))
    with pytest.raises(DataError, match="cskd-pipeline repair") as caught:
        copy(source, tmp_path / "t.zarr")
    assert str(file) in str(caught.value)
    if (tmp_path / "t.zarr").exists():  # found on the way: a checksum
        assert 1 not in StoreReader(tmp_path / "t.zarr").committed(5)
        assert all(not bad for _, _, bad in check_files(StoreReader(tmp_path / "t.zarr")))
    file.write_bytes(raw)
    copy(source, tmp_path / "t.zarr")
    assert contents(open_storage(tmp_path / "t.zarr")) == contents(open_storage(source))


def test_damage_in_an_encoding_that_is_left_out_does_no_harm(source: Path, tmp_path: Path) -> None:
    (source / "seed-000005/soft/c/1/0").unlink()
    (source / "seed-000000/soft/zarr.json").write_text("{")
    copy(source, tmp_path / "t.zarr", encodings=["hard"])
    assert is_well(tmp_path / "t.zarr")


def test_chunks_of_another_size_are_copied_as_they_are(source: Path, tmp_path: Path) -> None:
    # 16 rows a chunk, as another writer may choose: here only the metadata say so.
    store = StoreReader(source)
    for field in store.fields:
        for seed in (0, 5):
            text = array_text(field, store.header, rows=16)
            (source / f"seed-{seed:06d}/{field.name}/zarr.json").write_bytes(text)
    copy(source, tmp_path / "t.zarr", (0,))
    assert contents(open_storage(tmp_path / "t.zarr/seed-000000")) == contents(open_storage(source / "seed-000000"))
    (tmp_path / "t.zarr/seed-000000/commits/000001.json").unlink()
    (tmp_path / "t.zarr/seed-000000/soft/zarr.json").write_bytes(array_text(store.fields[2], store.header, rows=32))
    with pytest.raises(MismatchError, match="seed 0's soft in chunks of 32 rows, not of 16"):
        copy(source, tmp_path / "t.zarr", (0,))


def test_a_place_with_anything_else_is_refused_and_left_as_it_is(source: Path, tmp_path: Path) -> None:
    write(tmp_path / "other.zarr", HARD | SOFT, seeds=(0,))
    change_commit(tmp_path / "other.zarr", 1, rows=[64, 127])  # as if it held other labels
    write(tmp_path / "full.zarr", FULL, seeds=())
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/mine.txt").write_text("mine")
    (tmp_path / "plain").write_text("mine")
    cases = (
        (
            "other.zarr",
            MismatchError,
            "has other labels than those to be copied in block 1 of seed 0; remove its folder",
        ),
        ("full.zarr", MismatchError, r"encodings\.full is .*; use the same settings, or another OUT"),
        ("notes", DataError, "is no label store; give another OUT, or remove it"),
        ("plain", DataError, "is no label store; give another OUT, or remove it"),
    )
    for name, kind, message in cases:
        before = contents(open_storage(tmp_path / name))
        with pytest.raises(kind, match=message):
            copy(source, tmp_path / name)
        assert contents(open_storage(tmp_path / name)) == before


def test_what_a_published_store_comes_with_may_lie_there(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "t.zarr"
    for name in ("README.md", ".gitattributes", ".cache/huggingface/download/x.metadata"):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (target / name).write_text("mine")
    copy(source, target)
    assert is_well(target)
    (target / "seed-000000/README.md").write_text("mine")
    assert [bad.remedy for bad in check_tree(StoreReader(target))] == ["remove"]


def test_incomplete_seeds_and_absent_encodings_are_refused(source: Path, tmp_path: Path) -> None:
    (source / "seed-000005/commits/000001.json").unlink()
    for seeds, message in (
        ((0, 5), r"seed 5 of .* is incomplete: 2 of 3 blocks; run precompute with --seeds 5 .* or export 0"),
        ((7,), r"seed 7 of .* is incomplete: 0 of 3 blocks"),
    ):
        with pytest.raises(DataError, match=message):
            copy(source, tmp_path / "t.zarr", seeds)
    with pytest.raises(MismatchError, match="has no full targets, it has hard, soft"):
        copy(source, tmp_path / "t.zarr", (0,), encodings=["full"])
    assert not (tmp_path / "t.zarr").exists()


def test_a_store_is_not_copied_into_itself(tmp_path: Path, s3: str) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "a")
    pairs = (
        (tmp_path / "a", tmp_path / "a", "is the store itself"),
        (tmp_path / "a", tmp_path / "link", "is the store itself"),
        (tmp_path / "link", tmp_path / "a/b/c", "lies inside the store"),
        (f"{s3}/a", f"{s3}/a/", "is the store itself"),
        (f"{s3}/a", f"{s3}/x/../a/b", "lies inside the store"),
        (s3, f"{s3}/a", "lies inside the store"),
    )
    for source, target, message in pairs:
        with pytest.raises(UsageError, match=message):
            require_apart(open_storage(source), open_storage(target))
    for source, target in ((tmp_path / "a", tmp_path / "ab"), (f"{s3}/a", f"{s3}/ab"), (f"{s3}/a", tmp_path / "a")):
        require_apart(open_storage(source), open_storage(target))


def test_memory_bounds_the_threads(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from concurrent.futures import ThreadPoolExecutor

    seen: list[int] = []

    class Pool(ThreadPoolExecutor):
        def __init__(self, threads: int) -> None:
            seen.append(threads)
            super().__init__(threads)

    monkeypatch.setattr("cskd_pipeline.publish.copying.ThreadPoolExecutor", Pool)
    largest = max(file.stat().st_size for file in source.glob("seed-*/*/c/**/*") if file.is_file())
    for number, memory in enumerate((1, 2 * largest, 1 << 40)):
        monkeypatch.setattr("cskd_pipeline.publish.copying.MEMORY_BYTES", memory)
        copy(source, tmp_path / f"{number}.zarr")
    assert seen[0] == 1 and 2 <= seen[1] < 8 and seen[2] == 8


def test_a_store_too_strange_to_copy_is_an_error(source: Path, tmp_path: Path) -> None:
    change_commit(source, 0, rows=[0, 63])
    with pytest.raises(DataError, match=r"000000\.json"):
        copy(source, tmp_path / "t.zarr")
    assert not (tmp_path / "t.zarr").exists()


def test_copying_does_not_import_torch() -> None:
    code = "import cskd_pipeline.publish.copying, cskd_pipeline.publish.card, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_settings_of_the_same_encoding_that_differ_are_refused(source: Path, tmp_path: Path) -> None:
    other = {"hard": HardEncoding(positions=6, classes=header().data["classes"], row_bytes=48)}
    write(tmp_path / "t.zarr", other, seeds=())
    with pytest.raises(MismatchError, match=r"encodings\.hard\.row_bytes is 48 in the store, 24 was asked for"):
        copy(source, tmp_path / "t.zarr", encodings=["hard"])
