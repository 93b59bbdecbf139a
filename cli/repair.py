"""`cskd-pipeline repair`."""

from __future__ import annotations

import click

from cskd_pipeline.runs.repair import RepairRequest
from cskd_pipeline.runs.repair import repair as run

from .options import request_command
from .terminal import terminal


@request_command(RepairRequest, "Make what is bad in a label store again.")
@click.argument("store")
def repair(request: RepairRequest, store: str) -> None:
    """Mend what `verify` finds in STORE.

    Damaged attributes are written again, and exactly the bad blocks are computed again, by the teacher that the store
    names; give --teacher-weights where they are not timm's own. Sound blocks are not touched, nor are files that do
    not belong to the store. Seeds that were never finished are left to `precompute`.
    """
    with terminal() as watch:
        done = run(store, request, progress=watch)
    for path in done.rewritten:
        click.echo(f"{path}: written again")
    for seed, block in done.units:
        click.echo(f"seed {seed} block {block}: computed again")
    for file in done.foreign:
        click.echo(f"{file.path}: {file.found}; it was left where it is")
    mended = f"{len(done.rewritten)} attribute files written and {len(done.units)} blocks computed again"
    click.echo(f"{store} is sound: {mended}, files that do not belong to it: {len(done.foreign)}")
