"""Checking a store against the teacher itself: random crops are rendered and labelled again, and compared."""

from __future__ import annotations

import dataclasses

import numpy as np

from cskd_pipeline.encodings import EncodedRows
from cskd_pipeline.errors import DataError
from cskd_pipeline.precompute.job import PrecomputeJob
from cskd_pipeline.replay import CropLoader
from cskd_pipeline.replay.order import order_key, permutation, sample_batches
from cskd_pipeline.store import StoreReader


@dataclasses.dataclass(frozen=True, slots=True)
class Difference:
    """A stored crop that is not what comes out today.

    Attributes:
        seed, sample: the crop.
        what: "pixels" or "targets".
        found: both values.
    """

    seed: int
    sample: int
    what: str
    found: str


def recompute(
    job: PrecomputeJob, store: StoreReader, *, crops: int, key: int, workers: int
) -> tuple[int, list[Difference]]:
    """How many crops were recomputed (about `crops`), and those that differ.

    Crops are drawn at random, keyed by `key`, from all committed blocks; a crop's mix partner comes with it.

    Raises:
        DataError: nothing is committed, or a shard or image cannot be read.
        MismatchError: the job is not the one that made the store.
    """
    header = store.header
    header.require_same(job.header, where=str(store.path))
    units = [(seed, block) for seed in store.seeds() for block in store.committed(seed)]
    if not units:
        raise DataError(f"{store.path} holds no committed block; there is nothing to verify")
    chunk = job.teacher.spec.chunk
    chosen = [units[i] for i in permutation(order_key(key, 0), 0, len(units))[: max(1, -(-crops // chunk))]]
    per_unit = -(-crops // len(chosen))
    loader = CropLoader(job.index, job.recipe, workers=workers)
    spec = job.teacher.spec
    checked, differences = 0, []
    for number, (seed, block) in enumerate(chosen):
        rows = header.rows(block)
        stored, stored_crc = store.read_block(seed, block)
        picks = rows.start + permutation(order_key(key, 1 + number), 0, len(rows))[:per_unit]
        partners = job.recipe.partners(seed, picks, total=header.samples)
        samples = np.unique(np.concatenate([picks, partners]))
        wanted = sample_batches(job.recipe, seed, samples, total=header.samples, batch=chunk)
        for crops_batch in loader.load(wanted):
            at = crops_batch.draws_B["sample"] - rows.start
            pixels = crops_batch.pixels(job.recipe, mean=spec.mean, std=spec.std, device=job.teacher.device)
            fresh = job.encoding.encode(*job.teacher(pixels))
            kept = EncodedRows(stored.rows[at], stored.spill)
            same_targets = job.encoding.equal(fresh, kept)
            for row in np.flatnonzero(crops_batch.crc_B != stored_crc[at]).tolist():
                found = f"checksum {crops_batch.crc_B[row]:08x}, stored {stored_crc[at[row]]:08x}"
                differences.append(Difference(seed, int(at[row]) + rows.start, "pixels", found))
            for row in np.flatnonzero(~same_targets).tolist():
                found = "the teacher's labels differ from the stored ones"
                differences.append(Difference(seed, int(at[row]) + rows.start, "targets", found))
            checked += len(crops_batch)
    return checked, differences
