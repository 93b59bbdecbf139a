"""Making a damaged store well: attributes are written anew, bad blocks computed again, and nothing else is touched."""

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
    """What was done, and what is left.

    Attributes:
        rewritten: paths of the attributes that were written anew.
        units: the blocks that were bad, and were computed again by this process or by one beside it.
        crops: how many crops that took.
        foreign: files that are none of the store's, and were left where they are.
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
    """Make what is bad in a store well again.

    A block is bad if a file of it is not what was committed, or if it has files and no commit. A bad block does not
    exist from the moment on when its repair begins; if that is interrupted, `precompute` makes it too.

    Args:
        storage: where the store lies.
        make_job: gives what made the store; called only where blocks are bad.
        workers: processes that make crops.
        watch: told how far the work is.

    Raises:
        DataError: there is no store, or the repair did not help.
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
        # What was bad may be well by now. A claim on a committed block is a dead writer's, or will soon be given back.
        waiting = units
        while waiting:
            waiting = [unit for unit in waiting if not _forgotten(writer, reader, claims, unit)]
            if waiting:
                claims.clear_dead()
                time.sleep(POLL_S)
        queue = ClaimedUnits(writer, claims, seeds, only=set(units))
        return work(job, writer, queue, workers=workers, watch=watch)


def _forgotten(writer: StoreWriter, reader: StoreReader, claims: Claims, unit: Unit) -> bool:
    """Whether the block is well, or does not exist any more; False while a writer has a claim on what exists."""
    if not writer.is_committed(*unit):
        return True  # whoever is at work on it commits it, or the queue hands it out when its claim is free
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
