"""Repair a damaged store: rewrite attributes, recompute bad blocks, and touch nothing else."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable

from cskd_pipeline.errors import CskdError, DataError
from cskd_pipeline.labelling.job import PrecomputeJob, work
from cskd_pipeline.labelling.units import POLL_S, ClaimedUnits, Unit
from cskd_pipeline.progress import Watch, silent
from cskd_pipeline.seeds import format_seeds
from cskd_pipeline.storage import Storage
from cskd_pipeline.store import (
    BadFile,
    Claims,
    StoreReader,
    StoreWriter,
    begun_blocks,
    check_block,
    check_files,
    check_tree,
    recover_root,
    rewrite_metadata,
)

_SHOWN = 5


@dataclasses.dataclass(frozen=True, slots=True)
class Repaired:
    """The result of `repair`.

    Attributes:
        rewritten: paths of the attributes that were rewritten.
        units: the blocks that were bad and were recomputed, by this process or another.
        crops: crops that this process recomputed.
        foreign: files that do not belong to the store; they are left in place.
    """

    rewritten: list[str]
    units: list[Unit]
    crops: int
    foreign: list[BadFile]


def repair(
    storage: Storage,
    make_job: Callable[[StoreReader], PrecomputeJob],
    *,
    workers: int,
    watch: Watch = silent,
) -> Repaired:
    """Repair a store.

    A block is bad if one of its files differs from what was committed, or if it has files but no commit. Its repair
    begins by deleting its commit file; if the repair is interrupted, `precompute` makes the block too.

    Args:
        storage: of the store.
        make_job: makes the job that made the store; called only if blocks are bad.
        workers: processes that make crops.
        watch: told how far the work is.

    Raises:
        DataError: there is no store, or files are still bad afterwards.
        MismatchError: the job is not the one that made the store.
        StoppedError, RetryError: as `precompute`.
    """
    rewritten = [storage.at("zarr.json")] if recover_root(storage) else []
    reader = StoreReader(storage)
    storage.sweep()
    rewritten += rewrite_metadata(reader)
    bad = {(seed, block) for seed, block, files in check_files(reader) if files}
    units = sorted(bad | {(seed, block) for seed, blocks in begun_blocks(reader).items() for block in blocks})
    crops = 0
    if units:
        try:
            job = make_job(reader)
        except CskdError as error:
            done = f"{len(rewritten)} attribute files were written again; " if rewritten else ""
            raise type(error)(
                f"{done}{len(units)} blocks of {reader.path} must be computed again (seed and block: {_some(units)}), "
                f"but {error}"
            ) from error
        watch(f"computing {len(units)} blocks again (seed and block: {_some(units)})")
        crops = _remake(job, StoreWriter(storage, reader.header), reader, units, workers=workers, watch=watch)
    reader = StoreReader(storage)
    tree = [*check_tree(reader)]
    left = [file for unit in units for file in check_block(reader, *unit)]
    left += [file for file in tree if file.remedy != "remove"]
    if left:
        raise DataError(f"{reader.path} still has {len(left)} bad files, the first is {left[0].path}: {left[0].found}")
    return Repaired(rewritten, units, crops, [file for file in tree if file.remedy == "remove"])


def _remake(
    job: PrecomputeJob,
    writer: StoreWriter,
    reader: StoreReader,
    units: list[Unit],
    *,
    workers: int,
    watch: Watch,
) -> int:
    seeds = sorted({seed for seed, _ in units})
    with Claims(writer.storage, seeds=format_seeds(seeds)) as claims:
        # A bad block may be fine by now. A claim on a committed block is a dead writer's, or will soon be released.
        waiting = units
        while waiting:
            waiting = [unit for unit in waiting if not _forgotten(writer, reader, claims, unit)]
            if waiting:
                claims.clear_dead()
                time.sleep(POLL_S)
        queue = ClaimedUnits(writer, claims, seeds, only=set(units))
        return work(job, writer, queue, workers=workers, watch=watch)


def _forgotten(writer: StoreWriter, reader: StoreReader, claims: Claims, unit: Unit) -> bool:
    """Whether the block is fine or no longer exists; False while a writer has a claim on an existing one."""
    if not writer.is_committed(*unit):
        return True  # a writer is working on it, or the queue hands it out once its claim is free
    if not claims.take(*unit):
        return False
    try:
        if check_block(reader, *unit):
            writer.uncommit(*unit)
    finally:
        claims.release(*unit)
    return True


def _some(units: list[Unit]) -> str:
    shown = ", ".join(f"{seed} {block}" for seed, block in units[:_SHOWN])
    return shown + (f" and {len(units) - _SHOWN} more" if len(units) > _SHOWN else "")
