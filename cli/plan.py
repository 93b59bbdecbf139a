"""`cskd-pipeline plan`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from cskd_pipeline.runs.plan import PlanRequest
from cskd_pipeline.runs.plan import plan as run
from cskd_pipeline.wording import duration, size

from .options import json_option, request_command
from .terminal import terminal

if TYPE_CHECKING:
    from cskd_pipeline.runs.plan import Plan


@request_command(PlanRequest, "Measure what labels will cost before they are made.")
@json_option
def plan(request: PlanRequest, as_json: bool) -> None:
    """Label a few crops and say what labels of all --seeds will cost: bytes, hours, memory, processors.

    Takes the options of `precompute`, and stores nothing.

    \b
    cskd-pipeline plan --data FOLDER --teacher resnet50 \\
        --teacher-weights FILE --seeds 0:30 --out labels.zarr
    """
    with terminal() as watch:
        found = run(request, progress=watch)
    if as_json:
        click.echo(json.dumps(found.to_json()))
    else:
        _show(found)
    for warning in found.warnings:
        click.echo(f"warning: {warning}", err=True)


def _show(plan: Plan) -> None:
    plural = "" if plan.seeds == 1 else "s"
    click.echo(
        f"{plan.images:,} images x {plan.seeds} seed{plural} = {plan.crops:,} crops of {plan.size} px, measured on "
        f"{plan.measured_crops:,}"
    )
    click.echo(f"\n{'bytes':16}{'a crop':>10}{'in all':>14}")
    for name, total in plan.bytes.items():
        per_crop = total / plan.crops if name == "total" else plan.bytes_per_crop[name]
        click.echo(f"  {name:14}{per_crop:10.1f}{size(total):>14}")
    on_gpu = plan.device != "cpu"
    rates = f"{plan.crops_s:,.0f} crops/s on this device ({plan.device})"
    click.echo(
        f"\ntime            {duration(plan.seconds)} on this device, {duration(plan.seconds_shared)} on "
        f"{plan.devices} of them"
    )
    click.echo(
        f"                {rates}; the teacher alone {plan.teacher_crops_s:,.0f}, crops alone "
        f"{plan.core_crops_s:,.0f} a processor core"
    )
    if on_gpu:
        click.echo(f"cores           {plan.cores:.1f} make the crops that keep the teacher busy, for each GPU")
    tables = ", ".join(f"{size(total)} for {name}" for name, total in plan.training_bytes.items())
    click.echo(f"training        {tables}: memory or --scratch of a node")
    click.echo(f"                {1000 / plan.core_crops_s:.1f} processor cores for every 1,000 crops/s of the student")
    click.echo(f"live teacher    {duration(plan.live_seconds)} of this device for each run of {plan.epochs} epochs")
