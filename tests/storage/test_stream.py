"""A stored file is read as an open one is: in few requests where it is read through, in small ones where it is not."""

from __future__ import annotations

import io
import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from cskd_pipeline.storage import FolderStorage, StoredFile, open_stored
from cskd_pipeline.storage.stream import LEAST, MOST


class Counted(FolderStorage):
    """Knows what was asked of it."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.asked: list[tuple[int, int]] = []

    def read_ranges(self, name: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        self.asked += ranges
        return super().read_ranges(name, ranges)

    @property
    def bytes(self) -> int:
        return sum(stop - start for start, stop in self.asked)


CONTENT = random.Random(0).randbytes(11_000_001)


@pytest.fixture
def counted(tmp_path: Path) -> Counted:
    (tmp_path / "file").write_bytes(CONTENT)
    return Counted(tmp_path)


FILE = StoredFile("file", len(CONTENT))


def test_any_reads_and_jumps_give_what_an_open_file_gives(counted: Counted) -> None:
    chance = random.Random(1)
    expected = io.BytesIO(CONTENT)
    with open_stored(counted, FILE) as stream:
        for _ in range(300):
            if chance.random() < 0.5:
                offset = chance.choice([chance.randrange(len(CONTENT) + 9), stream.tell() + chance.randrange(9999)])
                assert stream.seek(offset) == expected.seek(offset)
            count = chance.choice([0, 1, 512, 70_000, 5_000_000])
            assert stream.read(count) == expected.read(count)
            assert stream.tell() == expected.tell()
        assert stream.seek(-7, io.SEEK_END) == len(CONTENT) - 7
        assert stream.read() == CONTENT[-7:]


def test_reading_on_takes_few_requests_and_no_byte_twice(counted: Counted) -> None:
    with open_stored(counted, FILE) as stream:
        for start in range(0, len(CONTENT), 100_000):
            stream.seek(start)
            stream.read(512)
    assert len(counted.asked) <= 8
    assert counted.bytes <= len(CONTENT)
    assert max(stop - start for start, stop in counted.asked) == MOST


def test_long_jumps_take_small_requests(counted: Counted) -> None:
    with open_stored(counted, FILE) as stream:
        for start in range(0, len(CONTENT), 2_000_000):
            stream.seek(start)
            stream.read(512)
    assert [stop - start for start, stop in counted.asked] == [LEAST] * 6
