"""Check a store against the teacher itself: render and label random crops again, and compare."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from cskd_pipeline.errors import DataError
from cskd_pipeline.labelling.fidelity import measure
from cskd_pipeline.labelling.job import PrecomputeJob, answer
from cskd_pipeline.labelling.units import Unit
from cskd_pipeline.loading import CropLoader, block_batches
from cskd_pipeline.loading.order import order_key, permutation, sample_batches
from cskd_pipeline.store import Fidelity, StoreReader, mean_fidelity


@dataclasses.dataclass(frozen=True, slots=True)
class Difference:
    """A stored crop that differs from what is computed now.

    Attributes:
        seed, sample: the crop.
        what: "pixels", "targets", or "fidelity" of the block whose first crop this is.
        found: both values.
    """

    seed: int
    sample: int
    what: str
    found: str


@dataclasses.dataclass(frozen=True, slots=True)
class Recomputed:
    """The result of `recompute`.

    Attributes:
        crops: how many were recomputed.
        differences: the crops that differ from the stored ones.
        fidelity: of the stored labels of these crops, against the teacher's logits computed now.
    """

    crops: int
    differences: list[Difference]
    fidelity: Fidelity


def recompute(job: PrecomputeJob, store: StoreReader, *, crops: int, key: int, workers: int) -> Recomputed:
    """Recompute about `crops` crops and compare.

    Crops are drawn at random, keyed by `key`, from all committed blocks; a crop's mix partner is recomputed too. For
    one of these blocks, the fidelity is also compared with the one measured when the block was made.

    Raises:
        DataError: no block is committed, or a shard or image cannot be read.
        MismatchError: the job is not the one that made the store.
    """
    header = store.header
    header.require_same(job.header, where=store.path, remedy="give what it was made of")
    units = [(seed, block) for seed in store.seeds() for block in store.committed(seed)]
    if not units:
        raise DataError(f"{store.path} holds no committed block; there is nothing to verify")
    with CropLoader(job.index, job.recipe, workers=workers) as loader:
        return _recompute(job, store, units, loader, crops=crops, key=key)


def _recompute(
    job: PrecomputeJob, store: StoreReader, units: list[Unit], loader: CropLoader, *, crops: int, key: int
) -> Recomputed:
    header = store.header
    chunk = job.teacher.spec.chunk
    chosen = [units[i] for i in permutation(order_key(key, 0), 0, len(units))[: max(1, -(-crops // chunk))]]
    per_unit = -(-crops // len(chosen))
    checked, differences, fidelities = 0, [], []
    for number, (seed, block) in enumerate(chosen):
        rows = header.rows(block)
        stored = {name: store.read(seed, block, name) for name in store.encodings}
        stored_crc = store.read_crop_crc(seed, block)
        picks = rows.start + permutation(order_key(key, 1 + number), 0, len(rows))[:per_unit]
        partners = job.recipe.partners(seed, picks, total=header.samples)
        samples = np.unique(np.concatenate([picks, partners]))
        wanted = sample_batches(job.recipe, seed, samples, total=header.samples, batch=chunk)
        for crops_batch in loader.load(wanted):
            at = crops_batch.draws_B["sample"] - rows.start
            said = answer(job, crops_batch)
            kept = {name: records.take(at) for name, records in stored.items()}
            fidelities.append(measure(store.encodings, kept, *said, grid=header.grid))
            crc = crops_batch.checksums()
            for row in np.flatnonzero(crc != stored_crc[at]).tolist():
                found = f"checksum {crc[row]:08x}, stored {stored_crc[at[row]]:08x}"
                differences.append(Difference(seed, int(at[row]) + rows.start, "pixels", found))
            for name, encoding in store.encodings.items():
                for row in np.flatnonzero(~encoding.encode(*said).equal(kept[name])).tolist():
                    found = f"the teacher's labels differ from the stored ones ({name})"
                    differences.append(Difference(seed, int(at[row]) + rows.start, "targets", found))
            checked += len(crops_batch)
    differences += _fidelity_differences(job, store, chosen[0], loader)
    return Recomputed(checked, differences, mean_fidelity(fidelities))


def _fidelity_differences(job: PrecomputeJob, store: StoreReader, unit: Unit, loader: CropLoader) -> list[Difference]:
    seed, block = unit
    noted = store.commit(seed, block).fidelity
    if not noted:
        return []
    rows = store.header.rows(block)
    sample = next(block_batches(job.recipe, seed, rows, total=store.header.samples, batch=job.teacher.spec.chunk))
    crops = next(loader.load([sample]))
    at = crops.draws_B["sample"] - rows.start
    kept = {name: store.read(seed, block, name).take(at) for name in store.encodings}
    found = measure(store.encodings, kept, *answer(job, crops), grid=store.header.grid)
    return [
        Difference(seed, rows.start, "fidelity", f"{name} {key} {value:.6g}, noted was {noted.get(name, {}).get(key)}")
        for name, values in found.items()
        for key, value in values.items()
        if not math.isclose(value, noted.get(name, {}).get(key, math.nan), rel_tol=1e-6, abs_tol=1e-9)
    ]
