"""Copy complete seeds to another store, comparing every file with its committed checksum."""

from __future__ import annotations

import dataclasses
import posixpath
import threading
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, as_completed
from pathlib import Path

from cskd_pipeline.errors import DataError, MismatchError, StoppedError, UsageError
from cskd_pipeline.labels import FieldSpec
from cskd_pipeline.storage import FolderStorage, Storage
from cskd_pipeline.store import layout
from cskd_pipeline.store.commit import Commit
from cskd_pipeline.store.header import StoreHeader
from cskd_pipeline.store.reader import StoreReader
from cskd_pipeline.store.writer import StoreWriter

THREADS = 8
"""Blocks copied at a time: most of the time goes to waiting for disks and servers."""
MEMORY_BYTES = 1 << 30
"""Bound on the files in memory, one per thread; a single file may be larger."""


@dataclasses.dataclass(frozen=True, slots=True)
class Copied:
    """The result of `copy_seeds`: blocks copied, the bytes of their files, and blocks that were `present` already."""

    blocks: int
    bytes: int
    present: int


def copy_seeds(
    source: StoreReader,
    target: Storage,
    seeds: list[int],
    *,
    encodings: Collection[str] | None = None,
    progress: Callable[[int, int], object] = lambda done, total: None,
    report: Callable[[str], object] = lambda line: None,
) -> Copied:
    """Copy these seeds of a store to another place, with all of its encodings or some.

    A block exists at the target once its commit file is written, after all its other files: an interruption leaves
    whole blocks, and the same call continues. Blocks that are already there with the same labels are left alone; those
    with a missing or truncated file are copied again. With all encodings, attributes and commit files equal the
    source's to the byte.

    Args:
        source: what to copy from.
        target: an empty place, or a store with the attributes of the copy.
        seeds: complete seeds.
        encodings: which of the store's; all by default.
        progress: called with (done, total) bytes.
        report: called with a line on how much is already there.

    Raises:
        UsageError: the target is the source, or inside it.
        DataError: a seed is incomplete, a file of the source is damaged, or the target holds something else.
        MismatchError: the source lacks an encoding, or the target has other attributes or other labels.
        StoppedError: interrupted; whole blocks are kept.
    """
    require_apart(source.storage, target)
    header = _with_encodings(source, encodings)
    fields = [layout.CROP_CRC, *(source.encodings[name].field for name in header.encodings)]
    wanted = [_commits(source, seed, header, fields) for seed in seeds]
    rows = source.each(lambda seed: {field.name: source.rows_of_chunk(seed, field) for field in fields}, seeds)
    chunks = dict(zip(seeds, rows, strict=True))
    writer = StoreWriter(target, header, out="OUT")
    there = StoreReader(target)
    todo = [commit for commits in wanted for commit in _missing(there, commits)]
    total, blocks = sum(map(_size, todo)), sum(map(len, wanted))
    if len(todo) < blocks:
        report(f"{blocks - len(todo)} of {blocks} blocks are there already; {len(todo)} to copy")
    progress(0, total)

    stop, lock = threading.Event(), threading.Lock()
    ensured: set[int] = set()

    def files(commit: Commit) -> Iterator[tuple[str, bytes]]:
        for name in commit.files:
            if stop.is_set():
                raise CancelledError
            yield name, source.read_file(name, commit)

    def copy(commit: Commit) -> int:
        with lock:
            if commit.seed not in ensured:
                _ensure_seed(writer, commit.seed, chunks[commit.seed])
                ensured.add(commit.seed)
        writer.copy_block(commit, files(commit))
        return _size(commit)

    largest = max((int(facts["bytes"]) for commit in todo for facts in commit.files.values()), default=0)
    with ThreadPoolExecutor(max(1, min(THREADS, MEMORY_BYTES // max(1, largest)))) as pool:
        copies: list[Future[int]] = []
        try:
            copies.extend(pool.submit(copy, commit) for commit in todo)
            done = 0
            for finished in as_completed(copies):
                done += finished.result()
                progress(done, total)
        except BaseException as error:
            stop.set()
            pool.shutdown(cancel_futures=True)
            if not isinstance(error, KeyboardInterrupt):
                raise
            whole = sum(not finished.cancelled() and finished.exception() is None for finished in copies)
            raise StoppedError(
                f"stopped; {whole} of {len(todo)} blocks were copied to {target.address} in this run; run "
                "the same command to continue"
            ) from None
    return Copied(len(todo), total, blocks - len(todo))


def require_apart(source: Storage, target: Storage) -> None:
    """Raise UsageError if the target is the source or inside it."""
    inner, outer = _parts(target), _parts(source)
    if inner[: len(outer)] == outer:
        where = "is the store itself" if inner == outer else f"lies inside the store {source.address}"
        raise UsageError(f"{target.address} {where}; give another OUT")


def _parts(storage: Storage) -> tuple[str, ...]:
    if isinstance(storage, FolderStorage):
        return Path(storage.address).resolve().parts
    scheme, _, rest = storage.address.partition("://")
    return (scheme, *posixpath.normpath(rest).split("/"))


def _with_encodings(source: StoreReader, encodings: Collection[str] | None) -> StoreHeader:
    """The attributes of a store with only these encodings of the source."""
    for name in encodings or ():
        if name not in source.encodings:
            raise MismatchError(
                f"{source.path} has no {name} targets, it has {', '.join(source.encodings)}; name some of these with "
                "--targets"
            )
    kept = {
        name: settings for name, settings in source.header.encodings.items() if encodings is None or name in encodings
    }
    return dataclasses.replace(source.header, encodings=kept)


def _commits(source: StoreReader, seed: int, header: StoreHeader, fields: list[FieldSpec]) -> list[Commit]:
    """The commits of a complete seed, as a store with this header has them. All files that they name exist."""
    commits = source.complete_commits(seed, use="export")
    store = header.digest()
    if store != source.digest:
        folders = {name for field in fields for name in (field.name, layout.spill_group(field))}
        commits = [
            dataclasses.replace(
                commit,
                store=store,
                files={name: facts for name, facts in commit.files.items() if name.split("/")[0] in folders},
                fidelity={name: values for name, values in commit.fidelity.items() if name in header.encodings},
            )
            for commit in commits
        ]
    source.require_files(seed, commits)
    return commits


def _missing(target: StoreReader, wanted: list[Commit]) -> list[Commit]:
    """The blocks of a seed that the target lacks or has incompletely."""
    folder = layout.seed_name(wanted[0].seed)
    sizes = {file.name[len(folder) + 1 :]: file.size for file in target.storage.files(folder)}

    def is_there(commit: Commit) -> bool:
        name = layout.commit_name(commit.block)
        if name not in sizes:
            return False
        try:
            found = Commit.parse(target.storage.read(f"{folder}/{name}", limit=layout.MAX_COMMIT_BYTES))
        except (FileNotFoundError, DataError, ValueError):
            return False
        if dataclasses.replace(found, versions=commit.versions, fidelity=commit.fidelity) != commit:
            raise MismatchError(
                f"{target.path} has other labels than those to be copied in block {commit.block} of seed "
                f"{commit.seed}; remove its folder {folder}, or give another OUT"
            )
        return all(sizes.get(name) == facts["bytes"] for name, facts in commit.files.items())

    return [commit for commit, there in zip(wanted, target.each(is_there, wanted), strict=True) if not there]


def _ensure_seed(writer: StoreWriter, seed: int, rows: dict[str, int]) -> None:
    """Make sure that the target has the seed's metadata, with the source's chunk sizes."""
    for name, found in writer.ensure_seed(seed, rows).items():
        if found != rows[name]:
            raise MismatchError(
                f"{writer.path} has seed {seed}'s {name} in chunks of {found} rows, not of {rows[name]}; remove its "
                f"folder {layout.seed_name(seed)}, or give another OUT"
            )


def _size(commit: Commit) -> int:
    return sum(int(facts["bytes"]) for facts in commit.files.values())
