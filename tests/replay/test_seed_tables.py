"""Processes of a node share one decoded copy, made ahead of its use, and leave nothing behind however they end."""

from __future__ import annotations

import fcntl
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

import numpy as np
import pytest
from made_up_labels import SAMPLES, MadeUpReader, stored_rows

from cskd_pipeline.errors import DataError, RetryError
from cskd_pipeline.replay import decode_program, decoder, shared_tables
from cskd_pipeline.replay.decode_program import SeedTable
from cskd_pipeline.replay.shared_tables import SharedTables
from cskd_pipeline.replay.table_file import TableFile
from cskd_pipeline.replay.tables import PrivateTables

FORK = multiprocessing.get_context("fork")
SAMPLES_N = np.array([99, 0, 31, 32, 5, 5])


@pytest.fixture(autouse=True)
def made_up_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoder, "PROGRAM", Path(__file__).with_name("made_up_labels.py"))


@pytest.fixture
def reader(tmp_path: Path) -> MadeUpReader:
    store = tmp_path / "store"
    store.mkdir()
    return MadeUpReader(store)


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    return tmp_path / "scratch"


@pytest.fixture
def tables(reader: MadeUpReader, scratch: Path) -> Iterator[SharedTables]:
    tables = SharedTables(reader, scratch=scratch)
    yield tables
    tables.close()
    assert files(scratch) == []


def files(scratch: Path) -> list[str]:
    return sorted(path.name for path in scratch.glob("*/*"))


def log(reader: MadeUpReader) -> list[list[str]]:
    """Process, seed, name and block of each block read."""
    file = Path(reader.path) / "log"
    return [line.split() for line in file.read_text().splitlines()] if file.exists() else []


def eventually(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def seed_tables(*seeds: int, ratio_steps: int = 0) -> list[SeedTable]:
    return [SeedTable(seed, name, ratio_steps if name == "hard" else 0) for seed in seeds for name in ("hard", "full")]


def test_the_process_decodes_what_this_one_would(reader: MadeUpReader, tables: SharedTables) -> None:
    wanted = [*seed_tables(3, ratio_steps=500), SeedTable(3, "crop_crc")]
    tables.prepare(wanted, [])
    assert str(os.getpid()) not in {process for process, *_ in log(reader)}
    here = PrivateTables(reader)
    here.prepare(wanted, [])
    for table in wanted:
        shared, private = tables.entries(table, SAMPLES_N), here.entries(table, SAMPLES_N)
        expected = stored_rows(table.name, 3, SAMPLES_N) + np.array(table.ratio_steps).astype(np.uint16)
        assert (shared == expected).all() and (private == expected).all()
        assert shared.dtype == private.dtype and shared.flags.owndata


def use(reader: MadeUpReader, scratch: Path, orders: Connection) -> None:
    """A process that prepares what it is told, answers with an entry, and ends on None."""
    tables = SharedTables(reader, scratch=scratch)
    while (order := orders.recv()) is not None:
        tables.prepare(*order)
        orders.send(int(tables.entries(order[0][0], SAMPLES_N)[0, 0]))
    tables.close()
    os._exit(0)  # not through what pytest wants done at exit


class User:
    """Another process with tables of its own."""

    def __init__(self, reader: MadeUpReader, scratch: Path) -> None:
        self.orders, theirs = FORK.Pipe()
        self.process = FORK.Process(target=use, args=(reader, scratch, theirs), daemon=True)
        self.process.start()
        theirs.close()

    def end(self) -> None:
        self.orders.send(None)
        self.process.join()
        assert self.process.exitcode == 0


def test_processes_that_start_together_decode_once_and_the_last_one_deletes(
    reader: MadeUpReader, scratch: Path
) -> None:
    users = [User(reader, scratch) for _ in range(3)]
    for user in users:
        user.orders.send((seed_tables(1), []))
    assert {user.orders.recv() for user in users} == {2000 + 99 * 13}
    read = [line[1:] for line in log(reader)]
    assert len(read) == 2 * reader.header.blocks and len({tuple(line) for line in read}) == len(read)
    kept = files(scratch)
    assert len([name for name in kept if name.endswith(".npy")]) == 2
    for user in users[:2]:
        user.end()
        assert files(scratch) == kept
    users[2].end()
    assert files(scratch) == []


def test_the_next_epoch_is_decoded_while_this_one_is_in_use(
    reader: MadeUpReader, scratch: Path, tables: SharedTables
) -> None:
    first, second = seed_tables(1), seed_tables(2)
    (Path(reader.path) / "hang-2").touch()
    tables.prepare(first, second)
    eventually(lambda: log(reader)[-1][1] == "2")
    assert tables.entries(first[0], SAMPLES_N)[0, 0] == 2000 + 99 * 13, "it does not wait for seed 2"
    (Path(reader.path) / "hang-2").unlink()
    eventually(lambda: len([name for name in files(scratch) if name.endswith(".npy")]) == 4)
    read = log(reader)
    tables.prepare(second, [])
    assert tables.entries(second[0], SAMPLES_N)[0, 0] == 4000 + 99 * 13
    assert log(reader) == read
    assert {name.split("-")[1] for name in files(scratch)} == {"000002"}


def test_tables_are_kept_while_they_serve_and_made_anew_where_the_ratio_matters(
    reader: MadeUpReader, tables: SharedTables
) -> None:
    for ratio_steps in (10, 20):
        table = seed_tables(1, ratio_steps=ratio_steps)
        tables.prepare(table, seed_tables(1, ratio_steps=ratio_steps + 10))
        assert tables.entries(table[0], SAMPLES_N)[0, 0] == 2000 + 99 * 13 + ratio_steps
    tables.close()
    decoded = [name for _, _, name, block in log(reader) if block == "0"]
    assert decoded.count("full") == 1 and decoded.count("hard") >= 2


def test_seeds_that_take_turns_are_decoded_once(reader: MadeUpReader, tables: SharedTables) -> None:
    for seed in (1, 2, 1, 2):
        tables.prepare([SeedTable(seed, "full")], [SeedTable(3 - seed, "full")])
    assert sorted(seed for _, seed, _, block in log(reader) if block == "0") == ["1", "2"]


@pytest.mark.slow
def test_files_do_not_grow_with_the_number_of_seeds(scratch: Path, tables: SharedTables) -> None:
    for seed in range(6):
        tables.prepare(seed_tables(seed), seed_tables(seed + 1))
        assert {name.split("-")[1] for name in files(scratch)} <= {f"{seed:06d}", f"{seed + 1:06d}"}


def test_errors_come_through_as_they_are_and_do_not_stop_others(
    reader: MadeUpReader, scratch: Path, tables: SharedTables
) -> None:
    (Path(reader.path) / "broken-2").touch()
    tables.prepare(seed_tables(1), seed_tables(2))
    eventually(lambda: ["2", "hard", "1"] in [line[1:] for line in log(reader)])
    name = next(name for name in files(scratch) if "-000002-hard" in name and name.endswith(".lock"))
    other = TableFile(next(scratch.iterdir()), name.removesuffix(".lock"))
    eventually(lambda: other.lock(shared=False))  # though the first has not noticed yet
    other.release()
    with pytest.raises(DataError, match=r"^block 1 of seed 2 is damaged$"):
        tables.prepare(seed_tables(2), [])


def test_after_the_decoding_process_is_killed_the_same_can_be_tried_again(
    reader: MadeUpReader, scratch: Path, tables: SharedTables
) -> None:
    (Path(reader.path) / "hang-2").touch()
    tables.prepare(seed_tables(1), seed_tables(2))
    eventually(lambda: log(reader)[-1][1] == "2")
    os.kill(int(log(reader)[-1][0]), signal.SIGKILL)
    with pytest.raises(RetryError, match=r"seed 2 was killed by signal 9.*--label-memory low"):
        tables.prepare(seed_tables(2), [])
    assert not [name for name in files(scratch) if "-000002-" in name]
    (Path(reader.path) / "hang-2").unlink()
    tables.prepare(seed_tables(2), [])
    assert tables.entries(seed_tables(2)[0], SAMPLES_N)[0, 0] == 4000 + 99 * 13


def test_signals_to_the_group_do_not_reach_the_decoding_process(reader: MadeUpReader, tables: SharedTables) -> None:
    (Path(reader.path) / "hang-2").touch()
    tables.prepare(seed_tables(1), seed_tables(2))
    eventually(lambda: log(reader)[-1][1] == "2")
    assert os.getpgid(int(log(reader)[-1][0])) != os.getpgid(0)


def test_a_decoding_process_that_fails_is_a_bug(
    tables: SharedTables, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "broken.py"
    program.write_text("import sys; sys.exit(3)")
    monkeypatch.setattr(decoder, "PROGRAM", program)
    with pytest.raises(RuntimeError, match="seed 1 failed"):
        tables.prepare(seed_tables(1), [])


def test_what_a_killed_process_leaves_is_replaced_and_removed(
    reader: MadeUpReader, scratch: Path, tables: SharedTables
) -> None:
    user = User(reader, scratch)
    (Path(reader.path) / "hang-2").touch()
    user.orders.send((seed_tables(1), seed_tables(2)))
    user.orders.recv()
    eventually(lambda: log(reader)[-1][1] == "2")
    assert user.process.pid is not None
    os.kill(user.process.pid, signal.SIGKILL)
    user.process.join()
    left = files(scratch)
    assert [name for name in left if name.endswith(".partial")] and [name for name in left if name.endswith(".npy")]
    # The process that decoded for it ends too, though it hangs: nothing of seed 2 stays locked.
    tables.prepare(seed_tables(1), [])
    eventually(lambda: not (tables.prepare(seed_tables(1), []), [n for n in files(scratch) if "-000002-" in n])[1])
    decoders = {process for process, seed, *_ in log(reader) if seed == "1"}
    assert len(decoders) == 2, "a table that nobody holds is not trusted, but made again"
    assert tables.entries(seed_tables(1)[0], SAMPLES_N)[0, 0] == 2000 + 99 * 13


def test_only_what_nobody_holds_is_swept(reader: MadeUpReader, scratch: Path, tables: SharedTables) -> None:
    folder = scratch / f"cskd-{os.getuid()}"
    folder.mkdir(parents=True, mode=0o700)
    for name in ("old-1-hard.npy", "old-1-hard.lock", "old-2-hard.partial", "old-3-hard.lock"):
        (folder / name).write_bytes(b"x" * 50)
    held = TableFile(folder, "held")
    held.path.touch()
    assert held.lock(shared=True)
    tables.prepare(seed_tables(1), [])
    assert {name.split("-")[1] for name in files(scratch) if not name.startswith("held")} == {"000001"}
    assert held.path.exists()
    tables.close()
    assert files(scratch) == ["held.lock", "held.npy"]
    held.release()


def test_leftovers_of_a_user_that_died_a_moment_ago_are_not_used(
    scratch: Path, tables: SharedTables, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = seed_tables(1)
    tables.prepare(wanted, [])
    left = list(scratch.glob("*/*.npy"))
    tables.close()
    for path in left:
        np.save(path, np.zeros((SAMPLES, 5), np.uint16))
        path.with_suffix(".partial").touch()
    monkeypatch.setattr(shared_tables, "sweep", lambda folder: None)
    tables.prepare(wanted, [])
    assert tables.entries(wanted[0], SAMPLES_N)[0, 0] == 2000 + 99 * 13


def test_names_tell_stores_settings_seeds_and_ratios_apart(
    reader: MadeUpReader, scratch: Path, tables: SharedTables
) -> None:
    tables.prepare([*seed_tables(1, ratio_steps=3), *seed_tables(2, ratio_steps=4)], [])
    other = SharedTables(MadeUpReader(Path(reader.path), digest="another"), scratch=scratch)
    other.prepare([SeedTable(1, "hard", 3)], [])
    names = [name.removesuffix(".npy") for name in files(scratch) if name.endswith(".npy")]
    assert len(names) == 5
    digests = {name.split("-")[0] for name in names}
    assert len(digests) == 3 and all(len(digest) == 16 for digest in digests)
    assert {name.split("-", 1)[1] for name in names} == {
        "000001-hard-00003",
        "000001-full-00000",
        "000002-hard-00004",
        "000002-full-00000",
    }
    other.close()


def test_tables_survive_the_loss_of_the_folder(scratch: Path, tables: SharedTables) -> None:
    tables.prepare(seed_tables(1), [])
    for path in list(scratch.glob("*/*")):
        path.unlink()
    next(scratch.iterdir()).rmdir()
    tables.prepare([*seed_tables(1), *seed_tables(2)], [])
    for seed in (1, 2):
        assert tables.entries(SeedTable(seed, "hard"), SAMPLES_N)[0, 0] == seed * 2000 + 99 * 13


def test_forked_workers_keep_neither_locks_nor_memory(scratch: Path, tables: SharedTables) -> None:
    tables.prepare(seed_tables(1), [])
    path = next(scratch.glob("*/*-hard-*.npy"))
    with path.open("rb") as mapped:  # as a worker that was forked from a user has it
        stay, leave = FORK.Pipe()
        worker = FORK.Process(target=stay.recv, daemon=True)
        worker.start()
        tables.close()
        assert files(scratch) == [] and os.fstat(mapped.fileno()).st_size == 0
        leave.send(None)
        worker.join()


def test_a_full_disk_is_an_error_that_says_what_to_do(reader: MadeUpReader, tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, limits[1]))
    try:
        with pytest.raises(RetryError, match=r"cannot write the table .*File too large.*--scratch.*--label-memory low"):
            decode_program.write_table(reader, SeedTable(1, "hard"), tmp_path / "table")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_deciding_between_users_is_left_to_locks(tmp_path: Path) -> None:
    first, second = TableFile(tmp_path, "table"), TableFile(tmp_path, "table")
    assert first.lock(shared=False)
    assert not second.lock(shared=False) and not second.lock(shared=True)
    fcntl.flock(first.descriptor, fcntl.LOCK_SH)  # as the decoding process does when the table is there
    assert not second.lock(shared=False) and second.lock(shared=True)
    assert second.open() is None, "locked, but never decoded"
    first.release()
    assert list(tmp_path.iterdir()), "the second still holds it"
    second.release()
    assert not list(tmp_path.iterdir())


def test_a_lock_file_deleted_at_the_last_moment_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = TableFile(tmp_path, "table"), TableFile(tmp_path, "table")
    assert first.lock(shared=False)
    flock, calls = fcntl.flock, []

    def deleted_first(descriptor: int, how: int) -> None:
        calls.append(how)
        if len(calls) == 1:  # between the second's opening and locking
            first.delete()
            flock(first.descriptor, fcntl.LOCK_UN)
        flock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", deleted_first)
    assert second.lock(shared=False) and len(calls) > 1
    assert not TableFile(tmp_path, "table").lock(shared=True)
    second.release()
    first.unlock()


def test_workers_forked_from_one_user_do_not_keep_the_next_from_deleting(tmp_path: Path) -> None:
    first, second = TableFile(tmp_path, "table"), TableFile(tmp_path, "table")
    assert first.lock(shared=True) and second.lock(shared=True)
    stay, leave = FORK.Pipe()
    worker = FORK.Process(target=stay.recv, daemon=True)
    worker.start()
    first.unlock()
    second.release()
    assert not list(tmp_path.iterdir())
    leave.send(None)
    worker.join()


def test_a_lock_taken_in_passing_is_not_kept(
    scratch: Path, tables: SharedTables, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = TableFile.lock

    def busy(file: TableFile, *, shared: bool) -> bool:
        """As if another process were looking at seed 2 whenever this one asks for it."""
        return lock(file, shared=shared) and (shared or "-000002-" not in file.name or file.unlock() is not None)

    tables.prepare(seed_tables(1), [])
    monkeypatch.setattr(TableFile, "lock", busy)
    tables.prepare(seed_tables(1), seed_tables(2))
    monkeypatch.undo()
    assert all(
        TableFile(next(scratch.iterdir()), path.stem).lock(shared=False) for path in scratch.glob("*/*-000002-*")
    )


def test_the_decoding_process_imports_no_torch() -> None:
    program = Path(decode_program.__file__)
    code = f"import runpy, sys; runpy.run_path({str(program)!r}); sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-P", "-c", code], check=True)


def test_tables_are_whole(reader: MadeUpReader, tables: SharedTables) -> None:
    tables.prepare(seed_tables(4), [])
    everything = np.arange(SAMPLES)
    for table in seed_tables(4):
        assert (tables.entries(table, everything) == stored_rows(table.name, 4, everything)).all()
