"""What labels will cost, measured: a few groups of crops are made, labelled and stored as they would be."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
import tempfile
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

from cskd_pipeline.labelling.job import Block, PrecomputeJob, compute
from cskd_pipeline.labelling.units import Unit
from cskd_pipeline.loading import CropLoader, block_batches
from cskd_pipeline.progress import Progress, Watch, silent
from cskd_pipeline.replay.decoding import table_spec
from cskd_pipeline.store import StoreReader, StoreWriter, summarise

SECONDS = 20.0
"""How long crops are made and labelled, in whole blocks of the measurement; the parts alone take a tenth of that."""
MOST_CROPS = 32768
_ENOUGH, _MOST_OF_A_BLOCK = 256, 1024
"""Samples of a block of the measurement: little else is stored beside the labels, and the first is soon made."""


@dataclasses.dataclass(frozen=True, slots=True)
class Measured:
    """What a sample of crops cost on this machine.

    Attributes:
        crops: how many were labelled.
        crops_s: crops per second through all of `precompute`, onto this machine's disk for temporary files.
        teacher_crops_s: crops per second of the teacher alone.
        core_s: seconds that a processor core takes to make a crop.
        bytes_per_crop: stored bytes by field.
        table_bytes_per_crop: bytes in memory by target, decoded for training.
    """

    crops: int
    crops_s: float
    teacher_crops_s: float
    core_s: float
    bytes_per_crop: Mapping[str, float]
    table_bytes_per_crop: Mapping[str, int]


def measure_job(
    job: PrecomputeJob,
    *,
    seed: int,
    workers: int,
    augment: bool = True,
    seconds: float = SECONDS,
    watch: Watch = silent,
) -> Measured:
    """Label crops from all over the data set for about so many seconds, at least one group of them.

    Arguments and errors are otherwise those of `labelling.job.precompute`. Nothing is left of what is stored.
    """
    small = dataclasses.replace(job, block=_block(job))
    with tempfile.TemporaryDirectory() as folder:
        writer = StoreWriter(Path(folder) / "labels.zarr", small.header)
        sizes, marks = _label(small, writer, seed, workers, augment, seconds, watch)
        # What runs for the first time is slow: the first block, or if there are few the first chunk.
        first = sizes[0] // marks[0][1] if len(sizes) > 2 else 1
        rate = sum(crops for _, crops in marks[first:]) / (marks[-1][0] - marks[first - 1][0])
        stored = StoreReader(writer.storage)
        bytes_per_crop = {name: value for name, value in summarise(stored).bytes_per_crop.items() if name != "total"}
        tables = {name: table_spec(stored, name).row_bytes for name in job.encodings}
    return Measured(
        crops=sum(sizes),
        crops_s=rate,
        teacher_crops_s=_teacher_rate(job, seconds / 10),
        core_s=_core_seconds(small, seed, seconds / 10),
        bytes_per_crop=bytes_per_crop,
        table_bytes_per_crop=tables,
    )


def _block(job: PrecomputeJob) -> int:
    """Samples of a block of the measurement: the store's if that is small, else filled by whole chunks and groups."""
    group, chunk = job.recipe.group, job.teacher.spec.chunk
    if job.block is not None and job.block <= _MOST_OF_A_BLOCK:
        return job.block
    both = math.lcm(group, chunk)
    if both > max(group, _MOST_OF_A_BLOCK):
        both = group
    return both * max(1, min(_ENOUGH, len(job.index)) // both)


def _units(job: PrecomputeJob, seed: int) -> Iterator[Unit]:
    """Blocks in random order, and those of further seeds when they are used up; one that is not full is left out."""
    full = max(1, len(job.index) // job.header.block)
    for further in itertools.count(seed):
        for block in np.random.default_rng(further).permutation(full).tolist():
            yield further, block


def _label(
    job: PrecomputeJob, writer: StoreWriter, seed: int, workers: int, augment: bool, seconds: float, watch: Watch
) -> tuple[list[int], list[tuple[float, int]]]:
    """Label and store blocks as `labelling.job.work` does: crops of each, and when each chunk of crops was ready."""
    sizes: list[int] = []
    marks: list[tuple[float, int]] = []
    began = time.perf_counter()

    def advance(crops: int, _: Unit) -> None:
        marks.append((time.perf_counter(), crops))
        watch(Progress("measure", round(min(seconds, marks[-1][0] - began)), round(seconds), "second"))

    def write(made: Block) -> None:
        writer.write_block(*made.unit, made.records, made.crop_crc, versions={}, fidelity=made.fidelity)

    made = compute(job, job.header, _units(job, seed), workers=workers, augment=augment, advance=advance)
    with contextlib.closing(made), ThreadPoolExecutor(1) as thread:
        written: Future[None] | None = None
        for block in made:
            if written is not None:
                written.result()
            written = thread.submit(write, block)
            sizes.append(len(block.crop_crc))
            if len(marks) > 1 and (time.perf_counter() - began > seconds or sum(sizes) > MOST_CROPS):
                written.result()
                return sizes, marks
    raise AssertionError


def _teacher_rate(job: PrecomputeJob, seconds: float) -> float:
    """Crops per second on pixels that are there: not zeros, which some kernels are quicker with."""
    size, chunk, device = job.recipe.size, job.teacher.spec.chunk, job.teacher.device
    pixels = torch.randn(chunk, 3, size, size, generator=torch.Generator().manual_seed(0)).to(device)

    def run() -> None:
        job.teacher(pixels)
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    run()
    began = time.perf_counter()
    for done in itertools.count(1):
        run()
        spent = time.perf_counter() - began
        if spent > seconds:
            return done * chunk / spent
    raise AssertionError


def _core_seconds(job: PrecomputeJob, seed: int, seconds: float) -> float:
    """Of making a crop, in this process."""
    batches = (
        batch
        for unit_seed, block in _units(job, seed)
        for batch in block_batches(
            job.recipe, unit_seed, job.header.rows(block), total=len(job.index), batch=job.teacher.spec.chunk
        )
    )
    crops, began = 0, None
    with CropLoader(job.index, job.recipe, workers=0) as loader:
        for batch in loader.load(batches):
            if began is None:  # the first batch reads what is read once
                began = time.process_time()
                continue
            crops += len(batch)
            if time.process_time() - began > seconds:
                return (time.process_time() - began) / crops
    raise AssertionError
