"""`cskd-pipeline precompute`."""

from __future__ import annotations

import os
from typing import Any

import click

from cskd_pipeline.errors import UsageError

from .config_file import config_option
from .key_value import KeyValue
from .options import (
    augment_option,
    data_options,
    machine_options,
    recipe_options,
    require_context,
    say,
    teacher_options,
    worker_count,
)
from .precompute_job import PrecomputeSettings, open_job
from .precompute_on_ray import actor_count, engine_options, run_on_ray


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
@engine_options
@config_option
@click.pass_context
def precompute(
    ctx: click.Context,
    /,
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
    engine: str,
    actors: str,
    ray_address: str | None,
    **teacher_settings: Any,
) -> None:
    """Run the teacher over augmented crops, once, and store its labels.

    The same command goes on after an interruption; with other --seeds it adds to the store. Any number of processes
    may do so at once, on one machine or many, under torchrun, srun, a Slurm array or a Kubernetes Job, or started by
    hand: each block is claimed by one of them, and what a killed one was at is done by the others. With --engine ray,
    Ray starts them, and starts them again.

    \b
    cskd-pipeline precompute --data imagenette --data-root DATA \\
        --teacher resnet50 --teacher-weights teacher.safetensors \\
        --seeds 0:30 --out labels.zarr
    """
    from cskd_pipeline.labelling import precompute as run
    from cskd_pipeline.labelling import warn_of_gap
    from cskd_pipeline.loading import killed_workers_named
    from cskd_pipeline.runtime.launcher import launched_rank
    from cskd_pipeline.seeds import parse_seeds
    from cskd_pipeline.store import StoreReader, summarise

    wanted = parse_seeds(seeds)
    processes = worker_count(workers)
    settings = PrecomputeSettings(
        data=data,
        data_root=data_root,
        split=split,
        out=out,
        recipe=recipe,
        recipe_args=recipe_args,
        size=size,
        targets=targets,
        target_args=target_args,
        block=block,
        teacher=teacher_settings,
    )
    augmented = augment == "workers"
    if engine == "ray":
        if rank is not None or world_size is not None:
            raise UsageError("--rank and --world-size number processes, which Ray does by itself; leave them out")
        run_on_ray(
            settings,
            wanted,
            actors=actor_count(actors),
            workers=None if workers == "auto" else processes,
            augment=augmented,
            device=device,
            address=ray_address,
        )
    else:
        require_context(ctx, ("actors", "ray_address"), without="--engine ray")
        place = launched_rank(rank, world_size, os.environ)
        settings.check()
        job, writer = open_job(settings, device, say)
        with killed_workers_named():
            if place.rank == 0:
                warn_of_gap(job, seed=wanted[0], report=say)
            run(job, writer, wanted, workers=processes, augment=augmented, **place._asdict(), report=say)
        if place.rank:
            return
    summary = summarise(StoreReader(out))
    click.echo(
        f"{out}: {len(summary.complete)} complete seed{'s' if len(summary.complete) != 1 else ''}, "
        f"{summary.crops:,} crops, {summary.bytes_per_crop['total']:.1f} bytes a crop"
    )
