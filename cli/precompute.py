"""`cskd-pipeline precompute`."""

from __future__ import annotations

import click

from cskd_pipeline.runs.inspect import inspect
from cskd_pipeline.runs.precompute import PrecomputeRequest
from cskd_pipeline.runs.precompute import precompute as run

from .options import request_command
from .terminal import terminal


@request_command(PrecomputeRequest, "Run the teacher once and store its labels.")
def precompute(request: PrecomputeRequest) -> None:
    """Run the teacher over augmented crops, once, and store its labels.

    \b
    export CSKD_DATA_ROOT=/path/to/imagenet
    cskd-pipeline precompute --teacher regnety_160 --out labels.zarr
    cskd-pipeline precompute --data FOLDER --teacher resnet50 \\
        --teacher-weights FILE --seeds 0:30 --out labels.zarr

    The same command continues after an interruption; with other --seeds it adds to the store. Any number of processes
    may run it at once, on one machine or many, under torchrun, srun, a Slurm array or a Kubernetes Job, or started by
    hand: each block is claimed by one of them, and the others do what a killed one was working on. With --engine ray,
    Ray starts them, and restarts them.
    """
    with terminal() as watch:
        done = run(request, progress=watch)
    if done.rank:
        return
    summary = inspect(request.out)
    click.echo(
        f"{request.out}: {len(summary.complete)} complete seed{'s' if len(summary.complete) != 1 else ''}, "
        f"{summary.crops:,} crops, {summary.bytes_per_crop['total']:.1f} bytes a crop"
    )
