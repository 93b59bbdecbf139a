"""`cskd-pipeline precompute`."""

from __future__ import annotations

import os
from typing import Any

import click

from cskd_pipeline.errors import UsageError

from .config_file import config_option
from .key_value import KeyValue
from .label_targets import make_encodings, stored_settings, target_settings
from .options import (
    augment_option,
    data_options,
    machine_options,
    make_recipe,
    make_teacher,
    open_data,
    recipe_options,
    require_teacher,
    say,
    teacher_options,
    worker_count,
)

DEFAULT_TARGETS = "hard,soft"


@click.command(short_help="Run the teacher once and store its labels.")
@data_options()
@click.option("--split", metavar="NAME", default="train", show_default=True, help="Split to label.")
@click.option(
    "--out",
    required=True,
    metavar="STORE",
    help="The label store: a new folder or s3://bucket/path, or a store to go on with.",
)
@click.option(
    "--seeds",
    default="0",
    show_default=True,
    metavar="LIST",
    help="Augmentation seeds, each one view of every image: 7, 0:30 (30 not included) or 0:10,20.",
)
@recipe_options
@teacher_options
@click.option(
    "--targets",
    metavar="LIST",
    help="What to store. hard: winning classes, exact for every schedule. soft: the likeliest classes' probabilities "
    "and the mass of the others. full: all logits, for few classes.  [default: hard,soft; what the store has]",
)
@click.option(
    "--target-arg",
    "target_args",
    type=KeyValue(),
    multiple=True,
    help="A setting of what is stored, such as soft.k=8 or full.dtype=float32; may be repeated.",
)
@click.option("--block", type=int, help="Samples per committed block.  [default: chosen to suit the set]")
@machine_options
@augment_option
@click.option("--rank", type=int, help="Number of this process, from 0.  [default: the launcher's]")
@click.option("--world-size", type=int, help="Number of processes that share the work.  [default: the launcher's]")
@config_option
def precompute(
    data: str,
    data_root: str | None,
    split: str,
    out: str,
    seeds: str,
    recipe: str,
    recipe_args: tuple[tuple[str, Any], ...],
    size: int,
    targets: str | None,
    target_args: tuple[tuple[str, Any], ...],
    block: int | None,
    device: str | None,
    workers: str,
    augment: str,
    rank: int | None,
    world_size: int | None,
    **teacher_settings: Any,
) -> None:
    """Run the teacher over augmented crops, once, and store its labels.

    The same command goes on after an interruption; with other --seeds it adds to the store. Any number of processes
    may do so at once, on one machine or many, under torchrun, srun, a Slurm array or a Kubernetes Job, or started by
    hand: each block is claimed by one of them, and what a killed one was at is done by the others.

    \b
    cskd-pipeline precompute --data imagenette --data-root DATA \\
        --teacher resnet50 --teacher-weights teacher.safetensors \\
        --seeds 0:30 --out labels.zarr
    """
    from cskd_pipeline.precompute import PrecomputeJob, launched_rank, parse_seeds, warn_of_gap
    from cskd_pipeline.precompute import precompute as run
    from cskd_pipeline.replay import killed_workers_named
    from cskd_pipeline.storage import open_storage
    from cskd_pipeline.store import StoreReader, StoreWriter, is_store, require_store_or_room, summarise
    from cskd_pipeline.train import choose_device

    wanted = parse_seeds(seeds)
    place = launched_rank(rank, world_size, os.environ)
    processes = worker_count(workers)
    crop_recipe = make_recipe(recipe, recipe_args, size)
    settings = target_settings(targets or DEFAULT_TARGETS, target_args)
    chosen_device = choose_device(device)
    if block is not None and block < 2:
        raise UsageError(f"--block must be at least 2, found {block}")
    storage = open_storage(out)
    require_store_or_room(storage)
    present = StoreReader(storage) if is_store(storage) else None  # more seeds for a store, which is what it is
    if block is None and present is not None:
        block = present.header.block
    if targets is None and not target_args and present is not None:
        settings = stored_settings(present.header.encodings)
    require_teacher(teacher_settings)
    index = open_data(data, split, data_root)
    teacher = make_teacher(teacher_settings, classes=len(index.classes), size=size, device=chosen_device)
    forms = make_encodings(settings, positions=teacher.positions, classes=len(index.classes))
    job = PrecomputeJob(index, crop_recipe, teacher, forms, block)
    say(
        f"{index.name} {index.split}: {len(index):,} images, {len(index.classes)} classes; teacher "
        f"{teacher.spec.model} ({teacher.spec.weights[:12]}) on {chosen_device}, "
        f"grid {teacher.grid[0]} x {teacher.grid[1]}"
    )
    writer = StoreWriter(storage, job.header)
    with killed_workers_named():
        if place.rank == 0:
            warn_of_gap(job, seed=wanted[0], report=say)
        run(job, writer, wanted, workers=processes, augment=augment == "workers", **place._asdict(), report=say)
    if place.rank:
        return
    summary = summarise(StoreReader(storage))
    click.echo(
        f"{out}: {len(summary.complete)} complete seed{'s' if len(summary.complete) != 1 else ''}, "
        f"{summary.crops:,} crops, {summary.bytes_per_crop['total']:.1f} bytes a crop"
    )
