"""Ranks of a node share one decoded copy, made ahead of its use, and leave nothing behind however they end."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch.distributed as dist
from made_up_labels import SAMPLES, MadeUpReader, stored_rows

from cskd_pipeline.errors import DataError, RetryError, UsageError
from cskd_pipeline.replay import decoding, tables
from cskd_pipeline.replay.decoding import SeedTable
from cskd_pipeline.replay.tables import SeedTables

FORK = multiprocessing.get_context("fork")
SAMPLES_N = np.array([99, 0, 31, 32, 5, 5])
FIRST = 99 * 13
"""What `SAMPLES_N[0]` has in seed 0 at ratio 0; another seed adds 2000 times its number."""


@pytest.fixture(autouse=True)
def made_up_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "PROGRAM", Path(__file__).with_name("made_up_labels.py"))
    monkeypatch.setattr(tables, "SMALL_BYTES", 0)


@pytest.fixture
def reader(tmp_path: Path) -> MadeUpReader:
    store = tmp_path / "store"
    store.mkdir()
    return MadeUpReader(store)


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    return tmp_path / "scratch"


@pytest.fixture
def shared(reader: MadeUpReader, scratch: Path) -> Iterator[SeedTables]:
    made = make(reader, scratch)
    yield made
    made.close()
    assert in_use(scratch) == 0 and not list(scratch.glob("*"))


def make(reader: MadeUpReader, scratch: Path) -> SeedTables:
    return SeedTables(reader, ["hard", "full"], scratch=scratch)  # type: ignore[arg-type]


def in_use(scratch: Path) -> int:
    """How many files of the folder this process has mapped or open."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    files = {line.split()[4] for line in lines if str(scratch) in line}
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the listing's own
            if str(scratch) in str(link.readlink()):
                files.add(str(link.stat().st_ino))
    return len(files)


def log(reader: MadeUpReader) -> list[list[str]]:
    """Process, seed, name and block of each block read."""
    file = Path(reader.path) / "log"
    return [line.split() for line in file.read_text().splitlines()] if file.exists() else []


def eventually(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def is_decoding(reader: MadeUpReader, seed: int) -> bool:
    return any(line[1] == str(seed) for line in log(reader))


def seed_tables(*seeds: int, ratio_steps: int = 0) -> list[SeedTable]:
    return [SeedTable(seed, name, ratio_steps if name == "hard" else 0) for seed in seeds for name in ("hard", "full")]


def first_entry(tables: SeedTables, seed: int, ratio_steps: int = 0) -> int:
    return int(tables.entries(SeedTable(seed, "hard", ratio_steps), SAMPLES_N)[0, 0])


def test_the_process_decodes_what_this_one_would(
    reader: MadeUpReader, shared: SeedTables, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = [*seed_tables(3, ratio_steps=500), SeedTable(3, "crop_crc")]
    shared.prepare(wanted, [])
    assert str(os.getpid()) not in {process for process, *_ in log(reader)}
    monkeypatch.setattr(tables, "SMALL_BYTES", 1 << 20)
    here = make(reader, scratch)
    here.prepare(wanted, seed_tables(4))
    assert {line[1] for line in log(reader) if line[0] == str(os.getpid())} == {"3"}
    everything = np.arange(SAMPLES)
    for table in wanted:
        for samples in (SAMPLES_N, everything):
            there, private = shared.entries(table, samples), here.entries(table, samples)
            expected = stored_rows(table.name, 3, samples) + np.array(table.ratio_steps).astype(np.uint16)
            assert (there == expected).all() and (private == expected).all()
            assert there.dtype == private.dtype and there.flags.owndata


def test_the_next_epoch_is_decoded_while_this_one_is_in_use(
    reader: MadeUpReader, scratch: Path, shared: SeedTables
) -> None:
    (Path(reader.path) / "hang-2").touch()
    shared.prepare(seed_tables(1), seed_tables(2))
    eventually(lambda: is_decoding(reader, 2))
    assert first_entry(shared, 1) == 2000 + FIRST, "it does not wait for seed 2"
    with pytest.raises(UsageError, match="seed 2 is not prepared; call prepare"):
        shared.entries(seed_tables(2)[0], SAMPLES_N)
    (Path(reader.path) / "hang-2").unlink()
    shared.prepare(seed_tables(2), [])
    assert first_entry(shared, 2) == 4000 + FIRST
    with pytest.raises(UsageError, match="seed 1 is not prepared"):
        shared.entries(seed_tables(1)[0], SAMPLES_N)
    assert len({process for process, *_ in log(reader)}) == 2 and len(log(reader)) == 2 * 2 * reader.header.blocks


def test_what_was_decoded_ahead_in_vain_is_dropped(reader: MadeUpReader, shared: SeedTables) -> None:
    (Path(reader.path) / "hang-2").touch()
    shared.prepare(seed_tables(1), seed_tables(2))
    shared.prepare(seed_tables(3), [])
    assert first_entry(shared, 3) == 6000 + FIRST


def test_tables_are_kept_while_they_serve_and_made_again_where_the_ratio_matters(
    reader: MadeUpReader, shared: SeedTables
) -> None:
    for ratio_steps in (10, 20):
        shared.prepare(seed_tables(1, ratio_steps=ratio_steps), seed_tables(1, ratio_steps=ratio_steps + 10))
        assert first_entry(shared, 1, ratio_steps) == 2000 + FIRST + ratio_steps
    shared.prepare(seed_tables(1, ratio_steps=30), [])
    decoded = [name for _, _, name, block in log(reader) if block == "0"]
    assert decoded.count("full") == 1 and decoded.count("hard") == 3


def test_seeds_that_take_turns_are_decoded_once(reader: MadeUpReader, shared: SeedTables) -> None:
    for seed in (1, 2, 1, 2):
        shared.prepare([SeedTable(seed, "full")], [SeedTable(3 - seed, "full")])
    assert sorted(seed for _, seed, _, block in log(reader) if block == "0") == ["1", "2"]


def test_a_node_holds_the_tables_of_two_epochs(scratch: Path, shared: SeedTables) -> None:
    for seed in range(4):
        shared.prepare(seed_tables(seed), seed_tables(seed + 1))
        assert in_use(scratch) == 4 and not list(scratch.iterdir()), "files have no name, not even while in use"


def test_errors_come_through_as_they_are(reader: MadeUpReader, shared: SeedTables) -> None:
    (Path(reader.path) / "broken-2").touch()
    shared.prepare(seed_tables(1), seed_tables(2))
    for _ in range(2):
        with pytest.raises(DataError, match=r"^block 1 of seed 2 is damaged$"):
            shared.prepare(seed_tables(2), [])
        with pytest.raises(UsageError, match="not prepared"):
            shared.entries(seed_tables(2)[0], SAMPLES_N)


def test_after_the_decoding_process_is_killed_the_same_can_be_tried_again(
    reader: MadeUpReader, shared: SeedTables
) -> None:
    (Path(reader.path) / "hang-2").touch()
    shared.prepare(seed_tables(1), seed_tables(2))
    eventually(lambda: is_decoding(reader, 2))
    os.kill(int(log(reader)[-1][0]), signal.SIGKILL)
    with pytest.raises(RetryError, match=r"seed 2 was killed by signal 9.*want of memory.*--scratch"):
        shared.prepare(seed_tables(2), [])
    (Path(reader.path) / "hang-2").unlink()
    shared.prepare(seed_tables(2), [])
    assert first_entry(shared, 2) == 4000 + FIRST


def test_signals_to_the_group_do_not_reach_the_decoding_process(reader: MadeUpReader, shared: SeedTables) -> None:
    (Path(reader.path) / "hang-2").touch()
    shared.prepare(seed_tables(1), seed_tables(2))
    eventually(lambda: is_decoding(reader, 2))
    assert os.getpgid(int(log(reader)[-1][0])) != os.getpgid(0)


def test_a_decoding_process_that_fails_is_a_bug(
    shared: SeedTables, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "broken.py"
    program.write_text("import sys; sys.exit(3)")
    monkeypatch.setattr(decoding, "PROGRAM", program)
    with pytest.raises(RuntimeError, match="seed 1 failed"):
        shared.prepare(seed_tables(1), [])


def use(reader: MadeUpReader, scratch: Path, orders: Connection, rank: int, world: int, nodes: int) -> None:
    """A rank that prepares what it is told, answers with an entry or the error, and ends on None."""
    if world > 1:
        meeting = f"file://{scratch.parent}/meeting"
        dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=world)
    tables.place = lambda: f"node {rank * nodes // world}"
    shared = make(reader, scratch)
    while (order := orders.recv()) is not None:
        try:
            shared.prepare(*order)
            orders.send((int(shared.entries(order[0][0], SAMPLES_N)[0, 0]), in_use(scratch)))
        except Exception as error:
            orders.send(error)
    shared.close()
    os._exit(0)  # not through what pytest wants done at exit


class Rank:
    """Another process with tables of its own."""

    def __init__(self, reader: MadeUpReader, scratch: Path, rank: int = 0, world: int = 1, nodes: int = 1) -> None:
        self.orders, theirs = FORK.Pipe()
        self.process = FORK.Process(target=use, args=(reader, scratch, theirs, rank, world, nodes), daemon=True)
        self.process.start()
        theirs.close()

    def end(self) -> None:
        self.orders.send(None)
        self.process.join()
        assert self.process.exitcode == 0


def all_ranks(ranks: list[Rank], *order: list[SeedTable]) -> list[Any]:
    for rank in ranks:
        rank.orders.send(order)
    return [rank.orders.recv() for rank in ranks]


@pytest.mark.parametrize("nodes", [1, 2])
def test_a_seed_is_decoded_once_on_each_node(reader: MadeUpReader, scratch: Path, nodes: int) -> None:
    ranks = [Rank(reader, scratch, rank, 4, nodes) for rank in range(4)]
    for seed in (1, 2):
        found = all_ranks(ranks, seed_tables(seed), seed_tables(seed + 1))
        assert found == [(2000 * seed + FIRST, 4)] * 4
        assert not list(scratch.iterdir())
    read = [line for line in log(reader) if line[1] in "12"]
    assert len(read) == 2 * 2 * reader.header.blocks * nodes
    for rank in ranks:
        rank.end()


def test_an_error_of_one_node_is_raised_on_all(reader: MadeUpReader, scratch: Path, tmp_path: Path) -> None:
    elsewhere = MadeUpReader(tmp_path)
    (tmp_path / "broken-2").touch()
    ranks = [Rank(reader, scratch, 0, 2, 2), Rank(elsewhere, scratch, 1, 2, 2)]
    assert all_ranks(ranks, seed_tables(1), seed_tables(2)) == [(2000 + FIRST, 4)] * 2
    errors = all_ranks(ranks, seed_tables(2), [])
    assert {type(error) for error in errors} == {DataError}
    assert {str(error) for error in errors} == {"block 1 of seed 2 is damaged"}
    (tmp_path / "broken-2").unlink()
    assert all_ranks(ranks, seed_tables(2), []) == [(4000 + FIRST, 2)] * 2
    for rank in ranks:
        rank.end()


def test_nothing_is_left_of_a_killed_run(reader: MadeUpReader, scratch: Path) -> None:
    rank = Rank(reader, scratch)
    (Path(reader.path) / "hang-2").touch()
    assert all_ranks([rank], seed_tables(1), seed_tables(2)) == [(2000 + FIRST, 4)]
    eventually(lambda: is_decoding(reader, 2))
    assert rank.process.pid is not None
    os.kill(rank.process.pid, signal.SIGKILL)
    rank.process.join()
    assert not list(scratch.iterdir())
    (Path(reader.path) / "hang-2").unlink()
    decoder = Path("/proc", log(reader)[-1][0])
    eventually(lambda: not decoder.exists() or ") Z " in (decoder / "stat").read_text())
    assert len([line for line in log(reader) if line[1] == "2"]) == 1, "it ends with the run it works for"


def test_forked_workers_keep_no_tables(reader: MadeUpReader, scratch: Path, shared: SeedTables) -> None:
    (Path(reader.path) / "hang-2").touch()
    shared.prepare(seed_tables(1), seed_tables(2))
    ours, theirs = FORK.Pipe()
    worker = FORK.Process(target=lambda: theirs.send(in_use(scratch)), daemon=True)
    worker.start()
    assert ours.recv() == 0
    worker.join()
    assert in_use(scratch) == 4


def test_a_full_disk_is_an_error_that_says_what_to_do(
    reader: MadeUpReader, shared: SeedTables, scratch: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, limits[1]))
    try:
        with pytest.raises(RetryError, match=r"cannot write decoded labels to .*scratch \(File too large\).*--scratch"):
            shared.prepare(seed_tables(1), [])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    with Path("/dev/full").open("wb") as full:
        job = {"store": reader.path, "folder": "scratch", "parent": os.getpid(), "descriptors": [full.fileno()]}
        job["tables"] = [{"seed": 1, "name": "hard", "ratio_steps": 0}]
        program = [sys.executable, "-P", str(decoding.PROGRAM), json.dumps(job)]
        said = subprocess.run(program, pass_fds=[full.fileno()], check=True, capture_output=True).stdout
    outcome = json.loads(said)
    assert outcome["error"] == "RetryError" and "to scratch (No space left on device); make room" in outcome["message"]


def test_the_decoding_process_imports_no_torch() -> None:
    code = f"import runpy, sys; runpy.run_path({decoding.__file__!r}); sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-P", "-c", code], check=True)
