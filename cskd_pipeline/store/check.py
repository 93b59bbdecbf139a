"""Comparing every committed file with the checksum taken when it was written."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

from cskd_pipeline.errors import DataError
from cskd_pipeline.store import layout
from cskd_pipeline.store.commit import commit_path, file_facts
from cskd_pipeline.store.reader import StoreReader


@dataclasses.dataclass(frozen=True, slots=True)
class BadFile:
    """A file that is not what was committed.

    Attributes:
        seed, block: the block it belongs to.
        path: the file.
        found: what is wrong with it.
    """

    seed: int
    block: int
    path: str
    found: str


def check_files(store: StoreReader) -> Iterator[tuple[int, int, list[BadFile]]]:
    """For every committed block its seed, its number and its bad files (none, if all is well).

    A block passes when every file has the committed crc32c and size, and its rows decode.
    """
    for seed in store.seeds():
        for block in store.committed(seed):
            yield seed, block, list(_check_block(store, seed, block))


def _phrase(facts: dict[str, Any]) -> str:
    return f"{facts['bytes']:,} bytes of crc32c {facts['crc32c']}"


def _check_block(store: StoreReader, seed: int, block: int) -> Iterator[BadFile]:
    seed_folder = store.path / layout.seed_name(seed)
    try:
        commit = store.commit(seed, block)
    except DataError as error:
        yield BadFile(seed, block, str(commit_path(seed_folder, block)), str(error))
        return
    bad = False
    for name, expected in commit.files.items():
        path = seed_folder / name
        try:
            found = file_facts(path)
        except OSError as error:
            bad = True
            yield BadFile(seed, block, str(path), error.strerror or str(error))
            continue
        if found != expected:
            bad = True
            yield BadFile(seed, block, str(path), f"{_phrase(found)}, committed were {_phrase(expected)}")
    if not bad:
        readings: dict[str, Callable[[], object]] = {
            name: functools.partial(store.read, seed, block, name) for name in store.encodings
        }
        readings[layout.CROP_CRC.name] = functools.partial(store.read_crop_crc, seed, block)
        for name, read in readings.items():
            try:
                read()
            except DataError as error:
                yield BadFile(seed, block, str(seed_folder / name), str(error))
