"""Claims: of many who want a block one gets it, the dead lose theirs, and the living never do."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from cskd_pipeline.errors import RetryError
from cskd_pipeline.runtime.process_name import process_of
from cskd_pipeline.storage import FolderStorage, Storage, open_storage
from cskd_pipeline.store import Claim, Claims, LostClaimError, list_claims, list_writers, read_writer
from cskd_pipeline.store.claims import forget_process


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(params=["folder", "bucket"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "folder":
        return open_storage(tmp_path / "s.zarr")
    return open_storage(request.getfixturevalue("s3") + "/s.zarr")


def claims(storage: Storage, clock: Clock, **settings: Any) -> Claims:
    """Whose signs of life come when the test says so."""
    made = Claims(storage, beat_s=3600, expiry_s=60, now=clock, **settings)
    made._beat()
    return made


def test_one_of_many_gets_a_block(storage: Storage) -> None:
    clock = Clock()
    writers = [claims(storage, clock) for _ in range(6)]
    with ThreadPoolExecutor(6) as pool:
        got = list(pool.map(lambda writer: writer.take(0, 3), writers))
    assert got.count(True) == 1
    (holder,) = (writer for writer, has in zip(writers, got, strict=True) if has)
    assert list_claims(storage) == [Claim(0, 3, holder.name)]
    holder.confirm(0, 3)
    for other in writers:
        assert other.others() == {(0, 3)}
        if other is not holder:
            with pytest.raises(LostClaimError):
                other.confirm(0, 3)
            other.release(0, 3)
    holder.release(0, 3)
    assert list_claims(storage) == [] and writers[0].others() == set()
    assert writers[0].take(0, 3)


def test_a_writer_without_signs_of_life_loses_its_claims_and_notices(storage: Storage) -> None:
    clock = Clock()
    silent, waiting = claims(storage, clock), claims(storage, clock)
    assert silent.take(7, 0) and not waiting.take(7, 0)
    clock.now = 59
    assert not waiting.take(7, 0)
    silent._beat()
    clock.now = 100  # it gave a sign meanwhile: the time begins again
    assert not waiting.take(7, 0)
    clock.now = 159
    assert not waiting.take(7, 0) and waiting.others() == {(7, 0)}
    clock.now = 161
    assert waiting.take(7, 0)
    with pytest.raises(LostClaimError):
        silent.confirm(7, 0)
    silent.release(7, 0)
    waiting.confirm(7, 0)


def test_a_claim_of_a_writer_that_has_ended_is_free_at_once(storage: Storage, ended_process: str) -> None:
    clock = Clock()
    storage.write(".claims/000001-000002.json", json.dumps({"writer": ended_process}).encode())
    storage.write(f".writers/{ended_process}.json", b"{}")
    storage.write(".claims/000001-000003.json", json.dumps({"writer": "gone-in-order"}).encode())
    writer = claims(storage, clock)
    assert writer.others() == set()
    assert writer.take(1, 2) and writer.take(1, 3)
    writer.clear_dead()
    assert list_writers(storage) == [writer.name]


def test_what_a_forgotten_process_held_is_free_at_once_and_it_notices_if_it_lives(storage: Storage) -> None:
    clock = Clock()
    lost, waiting = claims(storage, clock, name="a-1-2-00000000"), claims(storage, clock)
    assert lost.take(0, 0) and lost.take(0, 1) and waiting.take(0, 2)
    assert waiting.others() == {(0, 0), (0, 1), (0, 2)}
    forget_process(storage, process_of(lost.name))
    assert waiting.others() == {(0, 2)}, "before it looks again who is alive"
    assert waiting.take(0, 0)
    lost._beat()  # its node was out of reach, no more
    for block in (0, 1):
        with pytest.raises(LostClaimError):
            lost.confirm(0, block)
    lost.release(0, 0)
    waiting.confirm(0, 0)
    assert {claim.block for claim in list_claims(storage)} == {0, 2}


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"writer": 3}', b'{"writer": "../../x"}', b"x" * 100_000])
def test_a_claim_that_cannot_be_read_is_free_after_a_while(tmp_path: Path, content: bytes) -> None:
    storage, clock = FolderStorage(tmp_path), Clock()
    storage.write(".claims/000000-000000.json", content)
    writer = claims(storage, clock)
    assert not writer.take(0, 0) and writer.others() == {(0, 0)}
    clock.now = 61
    assert writer.take(0, 0)


def test_signs_of_life_go_on_while_there_is_progress(tmp_path: Path) -> None:
    storage = FolderStorage(tmp_path)
    with Claims(storage, seeds="0:3", beat_s=0.01, hang_s=1.5) as writer:
        assert writer.take(0, 0)
        until(lambda: (status := read_writer(storage, writer.name)) is not None and status.beat > 3)
        writer.progress(5)
        until(lambda: (status := read_writer(storage, writer.name)) is not None and status.crops == 5)
        time.sleep(2)
        first = read_writer(storage, writer.name)
        time.sleep(0.1)
        assert read_writer(storage, writer.name) == first  # it hangs: others shall have its blocks
        assert first is not None and first.seeds == "0:3"
    assert list_writers(storage) == [] and list_claims(storage) == []


def test_storage_that_fails_now_and_then_does_not_end_the_signs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = FolderStorage(tmp_path)
    with Claims(storage, beat_s=0.01) as writer:

        def refuse(*args: Any, **settings: Any) -> None:
            raise RetryError("no")

        with monkeypatch.context() as patched:
            patched.setattr(storage, "write", refuse)
            time.sleep(0.1)
        before = read_writer(storage, writer.name)
        assert before is not None
        until(lambda: (status := read_writer(storage, writer.name)) is not None and status.beat > before.beat)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.fixture
def ended_process() -> str:
    import subprocess
    import sys

    code = "from cskd_pipeline.runtime.process_name import process_name; print(process_name())"
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()


def test_a_block_that_another_took_over_is_not_offered_again(tmp_path: Path) -> None:
    storage, clock = FolderStorage(tmp_path), Clock()
    storage.write(".claims/000000-000000.json", json.dumps({"writer": "gone-in-order"}).encode())
    late, quick = claims(storage, clock), claims(storage, clock)
    assert late.others() == set()
    assert quick.take(0, 0)
    assert not late.take(0, 0)
    assert late.others() == {(0, 0)}  # though nobody was asked again who is dead


def test_looking_reads_only_claims_that_are_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage, clock = FolderStorage(tmp_path), Clock()
    writers = [claims(storage, clock) for _ in range(8)]
    for number, writer in enumerate(writers):
        assert writer.take(0, number)
    watcher = claims(storage, clock)
    assert len(watcher.others()) == 8
    reads: list[str] = []
    real = FolderStorage.read

    def read(self: FolderStorage, name: str, *, limit: int) -> bytes:
        reads.append(name)
        return real(self, name, limit=limit)

    monkeypatch.setattr(FolderStorage, "read", read)
    clock.now = 4000
    for writer in writers:
        writer._beat()
    assert len(watcher.others()) == 8 and reads == []
    clock.now = 8000
    for writer in writers[1:]:
        writer._beat()
    assert watcher.others() == {(0, number) for number in range(1, 8)} and reads == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"unix_time": "x"},
        {"unix_time": None},
        {"crops": 10**400},
        {"seconds": float("nan")},
        {"seeds": 5},
        {"host": ["x"]},
        {"more": 1},
    ],
)
def test_what_no_writer_says_of_itself_is_passed_over(tmp_path: Path, wrong: dict[str, Any]) -> None:
    storage = FolderStorage(tmp_path)
    status = {"name": "w", "host": "h", "beat": 1, "crops": 1, "seconds": 1, "seeds": "0", "unix_time": 1}
    storage.write(".writers/w.json", json.dumps(status).encode())
    assert read_writer(storage, "w") is not None
    storage.write(".writers/w.json", json.dumps({**status, **wrong}).encode())
    assert read_writer(storage, "w") is None
