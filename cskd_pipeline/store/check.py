"""Comparing every file of a store with what was committed, and naming those that do not belong there."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import re
from collections.abc import Callable, Iterator
from typing import Literal

from cskd_pipeline.errors import DataError
from cskd_pipeline.labels import FieldSpec
from cskd_pipeline.store import layout
from cskd_pipeline.store.commit import Commit, file_facts
from cskd_pipeline.store.metadata import array_text, chunk_rows, group_text
from cskd_pipeline.store.reader import StoreReader


@dataclasses.dataclass(frozen=True, slots=True)
class BadFile:
    """A file that is not what was committed.

    Attributes:
        seed, block: the block it belongs to; None where it belongs to all of a seed, or of the store.
        path: the file.
        found: what is wrong with it.
        remedy: "recompute" the block, "rewrite" the file from the store's attributes, or "remove" it by hand: it is
            none of the store's.
    """

    seed: int | None
    block: int | None
    path: str
    found: str
    remedy: Literal["recompute", "rewrite", "remove"] = "recompute"


def check_files(store: StoreReader) -> Iterator[tuple[int, int, list[BadFile]]]:
    """For every committed block its seed, its number and its bad files (none, if all is well)."""
    for seed, blocks in store.begun().items():
        for block in blocks:
            yield seed, block, check_block(store, seed, block)


def check_block(store: StoreReader, seed: int, block: int) -> list[BadFile]:
    """The bad files of a block. It passes when every file has the committed crc32c and size, and its rows decode."""
    return [*_check_block(store, seed, block)]


def check_tree(store: StoreReader) -> Iterator[BadFile]:
    """What is wrong with the store beside the blocks: damaged or missing metadata, and files that are none of its.

    Shards of blocks that are not committed are none of either: a writer may be at work, or was interrupted.
    """
    metadata = _metadata(store)
    for name, (seed, field) in metadata.items():
        try:
            found = store.storage.read(name, limit=layout.MAX_METADATA_BYTES)
        except FileNotFoundError:
            if seed is None or store.committed(seed):  # else a writer may be about to write it
                yield BadFile(seed, None, store.storage.at(name), "it is missing", "rewrite")
            continue
        except DataError as error:
            yield BadFile(seed, None, store.storage.at(name), str(error), "rewrite")
            continue
        if found != _text(store, field, found):
            yield BadFile(seed, None, store.storage.at(name), "it is not what a writer writes", "rewrite")
    for file in store.storage.files():
        if file.name not in metadata and not _belongs(store, file.name):
            yield BadFile(None, None, store.storage.at(file.name), "it is no part of a label store", "remove")


def rewrite_metadata(store: StoreReader) -> list[str]:
    """Write metadata that is missing or damaged anew; returns the paths of what was written.

    Raises:
        RetryError: the storage refuses.
    """
    written = []
    for name, (_, field) in _metadata(store).items():
        found = None
        with contextlib.suppress(FileNotFoundError, DataError):
            found = store.storage.read(name, limit=layout.MAX_METADATA_BYTES)
        text = _text(store, field, found)
        if found != text:
            store.storage.write(name, text)
            written.append(store.storage.at(name))
    return written


def begun_blocks(store: StoreReader) -> dict[int, set[int]]:
    """The blocks that have a shard and no commit file, by seed: a writer is or was at them, or the file was lost."""
    found: dict[int, set[int]] = {}
    for seed, committed in store.begun().items():
        folder = layout.seed_name(seed)
        names = {file.name[len(folder) + 1 :] for file in store.storage.files(folder)}
        blocks = {
            int(match[1])
            for name in names
            if (match := _NUMBER.search(name)) and int(match[1]) < store.header.blocks and _belongs_to_seed(store, name)
        }
        if blocks - {*committed}:
            found[seed] = blocks - {*committed}
    return found


_Kind = FieldSpec | Literal["attributes", "none"]


def _metadata(store: StoreReader) -> dict[str, tuple[int | None, _Kind]]:
    """Name of every metadata file -> its seed (None for the store), and what it describes."""
    expected: dict[str, tuple[int | None, _Kind]] = {layout.METADATA: (None, "attributes")}
    for seed in store.begun():
        folder = layout.seed_name(seed)
        expected[f"{folder}/{layout.METADATA}"] = (seed, "attributes")
        for field in store.fields:
            expected[f"{folder}/{field.name}/{layout.METADATA}"] = (seed, field)
        spills = {layout.spill_group(field) for field in store.fields}
        for name in sorted(spills & {*store.storage.folders(folder)}):
            expected[f"{folder}/{name}/{layout.METADATA}"] = (seed, "none")
    return expected


def _text(store: StoreReader, kind: _Kind, found: bytes | None) -> bytes:
    """What a metadata file should hold where `found` is what it holds."""
    if isinstance(kind, str):
        return group_text(store.header.to_json() if kind == "attributes" else {})
    rows = None
    with contextlib.suppress(ValueError):  # chunks may have any size that divides the block
        rows = chunk_rows(found or b"", kind, store.header)
    return array_text(kind, store.header, rows=rows)


def _belongs(store: StoreReader, name: str) -> bool:
    """Whether a writer of this store may have left a file of this name."""
    top, _, rest = name.partition("/")
    if top in (layout.CLAIMS, layout.WRITERS):
        return True
    if layout.may_lie_beside(name):
        return True
    if layout.seed_of(top) is None:
        return False
    return _belongs_to_seed(store, rest)


_NUMBER = re.compile(r"/(\d{1,12})(?:\.json$|/|$)")


def _belongs_to_seed(store: StoreReader, name: str) -> bool:
    """Whether it is the name, below a seed's group, of a file of one of its blocks."""
    match = _NUMBER.search(name)
    if match is None or int(match[1]) >= store.header.blocks:
        return False
    block = int(match[1])
    names = {layout.commit_name(block)}
    for field in store.fields:
        names |= {layout.shard_name(field, block), *layout.spill_names(field, block)}
    return name in names


def _phrase(content: bytes) -> str:
    facts = file_facts(content)
    return f"{facts['bytes']:,} bytes of crc32c {facts['crc32c']}"


def _check_block(store: StoreReader, seed: int, block: int) -> Iterator[BadFile]:
    folder = layout.seed_name(seed)
    name = f"{folder}/{layout.commit_name(block)}"
    try:
        commit = store.commit(seed, block)
        if store.storage.read(name, limit=layout.MAX_COMMIT_BYTES) != commit.text():
            raise DataError("it is not what a writer writes")
    except (DataError, FileNotFoundError) as error:
        yield BadFile(seed, block, store.storage.at(name), str(error))
        return
    bad = False
    for file in commit.files:
        found = _compared(store, commit, file)
        if found:
            bad = True
            yield BadFile(seed, block, store.storage.at(f"{folder}/{file}"), found)
    if not bad:
        readings: dict[str, Callable[[], object]] = {
            name: functools.partial(store.read, seed, block, name) for name in store.encodings
        }
        readings[layout.CROP_CRC.name] = functools.partial(store.read_crop_crc, seed, block)
        for field, read in readings.items():
            try:
                read()
            except DataError as error:
                yield BadFile(seed, block, store.storage.at(f"{folder}/{field}"), str(error))


def _compared(store: StoreReader, commit: Commit, name: str) -> str | None:
    """What is wrong with a file of a block."""
    path = f"{layout.seed_name(commit.seed)}/{name}"
    facts = commit.files[name]
    expected = f"{facts['bytes']:,} bytes of crc32c {facts['crc32c']}"
    try:
        size = store.storage.size(path)
        if size is not None and size != facts["bytes"]:  # whatever its size, it need not be read
            return f"{size:,} bytes, committed were {expected}"
        content = store.storage.read(path, limit=int(facts["bytes"]))
    except FileNotFoundError:
        return f"it is missing, committed were {expected}"
    except DataError as error:
        return str(error)
    return None if file_facts(content) == facts else f"{_phrase(content)}, committed were {expected}"
