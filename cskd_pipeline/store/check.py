"""Compare every file of a store with what was committed, and find files that do not belong there."""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Iterator
from typing import Any, Literal

from cskd_pipeline.errors import DataError
from cskd_pipeline.labels import FieldSpec
from cskd_pipeline.store import layout
from cskd_pipeline.store.commit import Commit, file_facts
from cskd_pipeline.store.metadata import array_text, chunk_rows, group_text
from cskd_pipeline.store.reader import StoreReader


@dataclasses.dataclass(frozen=True, slots=True)
class BadFile:
    """A file that differs from what was committed; `block` or `seed` is None if it belongs to a whole seed or store.

    The remedy is to "recompute" the block, to "rewrite" the file from the store's attributes, or to "remove" it by
    hand, because it does not belong to the store.
    """

    seed: int | None
    block: int | None
    path: str
    found: str
    remedy: Literal["recompute", "rewrite", "remove"] = "recompute"


def check_files(store: StoreReader) -> Iterator[tuple[int, int, list[BadFile]]]:
    """Seed, number and bad files (an empty list if all is well) of every committed block."""
    for seed, blocks in store.begun().items():
        for block in blocks:
            yield seed, block, check_block(store, seed, block)


def check_block(store: StoreReader, seed: int, block: int) -> list[BadFile]:
    """The bad files of a block: those without the committed crc32c and size, and arrays whose rows do not decode."""
    folder = layout.seed_name(seed)

    def bad(name: str, found: object) -> BadFile:
        return BadFile(seed, block, store.storage.at(f"{folder}/{name}"), str(found))

    name = layout.commit_name(block)
    try:
        commit = store.commit(seed, block)
        if store.storage.read(f"{folder}/{name}", limit=layout.MAX_COMMIT_BYTES) != commit.text():
            raise DataError("it is not what a writer writes")
    except (DataError, FileNotFoundError) as error:
        return [bad(name, error)]
    files = [bad(name, found) for name in commit.files if (found := _compared(store, commit, name))]
    if files:
        return files
    for field in [*store.encodings, layout.CROP_CRC.name]:
        try:
            if field == layout.CROP_CRC.name:
                store.read_crop_crc(seed, block)
            else:
                store.read(seed, block, field)
        except DataError as error:
            files.append(bad(field, error))
    return files


def check_tree(store: StoreReader) -> Iterator[BadFile]:
    """What is wrong outside the blocks: damaged or missing metadata, and files that do not belong to the store.

    Shards of uncommitted blocks are neither: a writer may be working on them, or was interrupted.
    """
    metadata = _metadata(store)
    for name, (seed, field) in metadata.items():
        try:
            found = store.storage.read(name, limit=layout.MAX_METADATA_BYTES)
        except FileNotFoundError:
            if seed is None or store.committed(seed):  # otherwise a writer may be about to write it
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
    """Rewrite missing or damaged metadata; return the paths of what was written."""
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
    """Blocks with a shard but no commit file, by seed: a writer is or was working on them, or the file was lost."""
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
    """Whether a writer of this store may have written a file of this name."""
    top, _, rest = name.partition("/")
    if top in (layout.CLAIMS, layout.WRITERS) or layout.may_lie_beside(name):
        return True
    return layout.seed_of(top) is not None and _belongs_to_seed(store, rest)


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


def _compared(store: StoreReader, commit: Commit, name: str) -> str | None:
    """What is wrong with a file of a block."""
    path = f"{layout.seed_name(commit.seed)}/{name}"
    facts = commit.files[name]
    expected = _phrase(facts)
    try:
        size = store.storage.size(path)
        if size is not None and size != facts["bytes"]:  # whatever its size, it need not be read
            return f"{size:,} bytes, committed were {expected}"
        content = store.storage.read(path, limit=int(facts["bytes"]))
    except FileNotFoundError:
        return f"it is missing, committed were {expected}"
    except DataError as error:
        return str(error)
    found = file_facts(content)
    return None if found == facts else f"{_phrase(found)}, committed were {expected}"


def _phrase(facts: dict[str, Any]) -> str:
    return f"{facts['bytes']:,} bytes of crc32c {facts['crc32c']}"
