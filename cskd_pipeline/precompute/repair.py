"""Making the bad blocks of a store again, and no others."""

from __future__ import annotations

import sys
from collections.abc import Callable

from cskd_pipeline.precompute.job import PrecomputeJob, work
from cskd_pipeline.precompute.units import ClaimedUnits, Unit
from cskd_pipeline.records.seed_list import format_seeds
from cskd_pipeline.store import Claims, StoreWriter


def remake(
    job: PrecomputeJob,
    writer: StoreWriter,
    units: list[Unit],
    *,
    workers: int,
    report: Callable[[str], None] = lambda line: print(line, file=sys.stderr),
) -> int:
    """Compute these blocks again and commit them in place of what is there; returns how many crops that took.

    From here on the blocks do not exist until they are whole; if that is interrupted, `precompute` makes them too.

    Raises:
        StoppedError, DataError, RetryError: as `precompute`.
    """
    seeds = sorted({seed for seed, _ in units})
    for unit in units:
        writer.uncommit(*unit)
    with Claims(writer.storage, seeds=format_seeds(seeds)) as claims:
        queue = ClaimedUnits(writer, claims, seeds, only=set(units))
        return work(job, writer, queue, workers=workers, report=report)
