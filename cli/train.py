"""`cskd-pipeline train`."""

from __future__ import annotations

import json

import click

from cskd_pipeline.runs.train import TrainRequest
from cskd_pipeline.runs.train import train as run

from .options import json_option, request_command
from .terminal import terminal


@request_command(TrainRequest, "Train a student on stored labels.")
@json_option
def train(request: TrainRequest, as_json: bool) -> None:
    """Train a student on replayed crops.

    \b
    cskd-pipeline train --labels labels.zarr --student deit_s
    cskd-pipeline train --preset cskd-s --labels labels.zarr --out run

    \b
    with --labels STORE    on stored targets; the teacher does not run
    with --teacher MODEL   on the targets of a live teacher
    with neither           on true labels: a baseline, or a teacher of your own

    RUN will hold metrics.csv, the weights best, last and ema (.safetensors), and what --resume needs.
    """
    from cskd_pipeline.runtime.ranks import launched_as_first

    with terminal() as watch:
        summary = run(request, progress=watch)
    if not launched_as_first():
        return
    if as_json:
        click.echo(json.dumps(summary.to_json()))
        return
    best = summary.best
    scored = f", best {best.head} top-1 {best.top1:.2f} % ({best.weights}, epoch {best.epoch})" if best else ""
    click.echo(f"{summary.folder}: {summary.epochs} epochs, {summary.updates} updates{scored}")
