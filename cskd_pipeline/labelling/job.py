"""The work of stage 1: `compute` is pure, `precompute` drives it over what is not committed yet."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cskd_pipeline.batch import Features
from cskd_pipeline.crops.batch import CropBatch
from cskd_pipeline.crops.draws import draw_positions
from cskd_pipeline.crops.recipe import CropRecipe
from cskd_pipeline.data import SampleIndex
from cskd_pipeline.errors import StoppedError, UsageError
from cskd_pipeline.labelling.fidelity import measure
from cskd_pipeline.labelling.units import ClaimedUnits, Unit
from cskd_pipeline.labelling.versions import versions
from cskd_pipeline.labels import Encoding, PooledEncoding, Records, TokensEncoding, encodings_to_json
from cskd_pipeline.loading import CropLoader, block_batches
from cskd_pipeline.loading.order import Batch
from cskd_pipeline.models.teacher.teacher import Teacher
from cskd_pipeline.progress import Progress, Watch, silent
from cskd_pipeline.runtime.ahead import ahead
from cskd_pipeline.runtime.stopping import stop_on_signals
from cskd_pipeline.seeds import format_seeds
from cskd_pipeline.store import Claims, Fidelity, LostClaimError, StoreHeader, StoreWriter, default_block
from cskd_pipeline.wording import duration

Answer = tuple[Tensor, Tensor, Tensor, Features]
"""Arguments of `encode`: dense logits fp32 [B, P, C], global ones fp32 [B, C], true classes int64 [B, 2], features."""


@dataclasses.dataclass(frozen=True, slots=True)
class PrecomputeJob:
    """Everything that stored labels are a function of.

    Attributes:
        index: the images.
        recipe: the crops.
        teacher: the labels.
        encodings: their forms, by name.
        block: samples per block; None chooses one that suits the set.
    """

    index: SampleIndex
    recipe: CropRecipe
    teacher: Teacher
    encodings: Mapping[str, Encoding]
    block: int | None = None

    @property
    def header(self) -> StoreHeader:
        """The attributes of a store that this job fills."""
        group = self.recipe.group
        row_bytes = sum(encoding.field.row_bytes for encoding in self.encodings.values())
        block = self.block or max(group, default_block(len(self.index), row_bytes) // group * group)
        if self.recipe.mixes and block % group:
            raise UsageError(
                f"a block of {block} samples cuts through groups of {group} that mix partners come from; "
                f"use a multiple of {group}"
            )
        return StoreHeader(
            recipe=self.recipe.to_json(),
            data={
                "name": self.index.name,
                "split": self.index.split,
                "samples": len(self.index),
                "classes": len(self.index.classes),
                "digest": self.index.digest,
            },
            teacher=self.teacher.spec.to_json(),
            grid=self.teacher.grid,
            encodings=encodings_to_json(self.encodings),
            block=block,
        )


def precompute(
    job: PrecomputeJob,
    writer: StoreWriter,
    seeds: list[int],
    *,
    workers: int,
    augment: bool = True,
    rank: int = 0,
    world: int = 1,
    watch: Watch = silent,
) -> int:
    """Have every block of these seeds computed and committed, by this process or others; returns crops made here.

    Any number of processes may do this on one store at a time, on any machines: each block is claimed by one of them.

    Args:
        job: what to compute.
        writer: the store.
        seeds: which seeds.
        workers: processes that make crops.
        augment: have them do RandAugment; else the teacher's device does it.
        rank, world: number of this process and of all, so that they begin in different places.
        watch: told how far the work is.

    Raises:
        StoppedError: interrupted; committed blocks are kept.
        DataError: an image cannot be read, or the teacher's logits cannot be stored.
        RetryError: the storage refuses.
    """
    with Claims(writer.storage, seeds=format_seeds(seeds)) as claims:
        claims.clear_dead()
        units = ClaimedUnits(writer, claims, seeds, rank=rank, world=world)
        left, total = units.left(), len(seeds) * writer.header.blocks
        if left < total:
            watch(f"{total - left} of {total} blocks are committed already; {left} to do")
        done = work(job, writer, units, workers=workers, augment=augment, watch=watch)
        claims.clear_dead()
        return done


def work(
    job: PrecomputeJob,
    writer: StoreWriter,
    units: ClaimedUnits,
    *,
    workers: int,
    augment: bool = True,
    watch: Watch = silent,
) -> int:
    """Compute and commit units until there is none left; returns how many crops this process made.

    Reading, the teacher, encoding and writing go on side by side. Arguments and errors are those of `precompute`.
    """
    header = writer.header
    stamp = versions(job.teacher.device)
    began, done, committed = time.perf_counter(), 0, 0
    left_before = units.left()
    written: Future[bool] | None = None
    unit: Unit = (0, 0)

    def settle() -> None:
        nonlocal done, committed, written
        if written is None:
            return
        future, written = written, None
        try:
            new = future.result()
        except LostClaimError:
            watch(f"seed {unit[0]} block {unit[1]} went to another process: this one was not heard of for too long")
            new = False
        crops = len(header.rows(unit[1]))
        units.done(unit, crops)
        done, committed = done + crops, committed + int(new)
        if new:
            seconds, left = time.perf_counter() - began, units.left()
            by_all = max(1, left_before - left)
            advance(
                0,
                unit,
                note=f"committed, {done / seconds:,.0f} crops/s, {left:,} block{'' if left == 1 else 's'} left, "
                f"{duration(left * seconds / by_all)} to go",
            )

    def write(made: Block) -> bool:
        return writer.write_block(
            *made.unit,
            made.records,
            made.crop_crc,
            versions=stamp,
            fidelity=made.fidelity,
            confirm=lambda: units.confirm(made.unit),
        )

    made_crops, total = 0, round(left_before * header.samples / header.blocks)

    def advance(crops: int, at: Unit, *, note: str = "") -> None:
        nonlocal made_crops
        made_crops += crops
        where = f"seed {at[0]} block {at[1] + 1}/{header.blocks}"
        watch(Progress("precompute", made_crops, total, "crop", where, note=note and f"{where} {note}"))
        units.progress(crops)

    with ThreadPoolExecutor(1) as thread:
        try:
            waiting = False
            while True:
                # Not as an exception wherever it arrives: in a finalizer that would be lost.
                with stop_on_signals(after="these crops") as stop:

                    def go_on(crops: int, at: Unit, stop: Callable[[], bool] = stop) -> None:
                        if stop():
                            raise KeyboardInterrupt
                        advance(crops, at)

                    blocks = compute(job, header, units.available(), workers=workers, augment=augment, advance=go_on)
                    with contextlib.closing(blocks):
                        for made in blocks:
                            settle()
                            unit, written = made.unit, thread.submit(write, made)  # while the next block is made
                    settle()
                if not units.wait():
                    return done
                if not waiting and units.left():
                    waiting = True
                    watch(f"other processes are at work on the last blocks ({units.left()}); waiting for them")
        except KeyboardInterrupt:
            settle()
            raise StoppedError(
                f"stopped; {committed} blocks were committed to {writer.path} in this run; "
                "run the same command to continue"
            ) from None


@dataclasses.dataclass(frozen=True, slots=True)
class Block:
    """A unit's result.

    Attributes:
        unit: (seed, block).
        records: of every encoding, in the order of samples.
        crop_crc: checksums of the crops' pixels.
        fidelity: of the block's first chunk of crops.
    """

    unit: Unit
    records: dict[str, Records]
    crop_crc: NDArray[np.uint32]
    fidelity: Fidelity


def compute(
    job: PrecomputeJob,
    header: StoreHeader,
    units: Iterable[Unit],
    *,
    workers: int,
    augment: bool = True,
    advance: Callable[[int, Unit], object] = lambda crops, unit: None,
) -> Generator[Block]:
    """The blocks of these units, which are asked for as there is room for their crops.

    The result for a unit is a pure function of (job, unit): it depends neither on the other units nor on `workers`.
    Workers have begun when this returns.
    """
    batch, device = job.teacher.spec.chunk, job.teacher.device
    loader = CropLoader(job.index, job.recipe, workers=workers, augment=augment, pin_memory=device.type == "cuda")

    def wanted() -> Iterator[Batch]:
        for seed, block in units:
            yield from block_batches(job.recipe, seed, header.rows(block), total=len(job.index), batch=batch)

    labelled = ahead(_labelled(job, loader.load(wanted())), depth=2, device=device)
    return _blocks(job, header, labelled, loader, advance)


def answer(job: PrecomputeJob, crops: CropBatch) -> Answer:
    """What the teacher says about crops of one seed, with their true classes: what encodings are made of."""
    spec, device = job.teacher.spec, job.teacher.device
    tokens = job.encodings.get(TokensEncoding.name)
    dense_BPC, global_BC, features = job.teacher.answer(
        crops.pixels(job.recipe, mean=spec.mean, std=spec.std, device=device),
        pooled=PooledEncoding.name in job.encodings,
        layers=tokens.layers if isinstance(tokens, TokensEncoding) else (),
    )
    if tokens is not None:
        seed, samples_B = int(crops.draws_B["seed"][0]), crops.draws_B["sample"]  # the batch is of one seed
        words_BP = draw_positions(job.recipe, seed, samples_B, positions=job.teacher.positions)
        features = features._replace(words_BP=torch.from_numpy(words_BP).to(device))
    labels = crops.labels(job.recipe, device=device)
    return dense_BPC, global_BC, torch.stack([labels.first_B, labels.second_B], 1), features


def _labelled(job: PrecomputeJob, batches: Iterator[CropBatch]) -> Iterator[tuple[CropBatch, Answer]]:
    """Crops with what the teacher says about them."""
    for rendered in batches:
        crops = rendered.on(job.teacher.device, job.recipe)
        yield crops, answer(job, crops)


def _blocks(
    job: PrecomputeJob,
    header: StoreHeader,
    labelled: Generator[tuple[CropBatch, Answer]],
    loader: CropLoader,
    advance: Callable[[int, Unit], object],
) -> Generator[Block]:
    parts: list[dict[str, Records]] = []
    samples: list[NDArray[np.int64]] = []
    checksums: list[NDArray[np.uint32]] = []
    fidelity: Fidelity = {}
    with loader, contextlib.closing(labelled):
        for crops, said in labelled:
            seed = int(crops.draws_B["seed"][0])
            block = int(crops.draws_B["sample"][0]) // header.block
            parts.append({name: encoding.encode(*said) for name, encoding in job.encodings.items()})
            fidelity = fidelity or measure(job.encodings, parts[0], *said, grid=job.teacher.grid)
            samples.append(crops.draws_B["sample"])
            checksums.append(crops.checksums())
            advance(len(crops), (seed, block))
            if sum(map(len, samples)) < len(header.rows(block)):
                continue
            order = np.argsort(np.concatenate(samples))
            records = {
                name: type(first).joined([part[name] for part in parts]).take(order) for name, first in parts[0].items()
            }
            yield Block((seed, block), records, np.concatenate(checksums)[order], fidelity)
            parts, samples, checksums, fidelity = [], [], [], {}
