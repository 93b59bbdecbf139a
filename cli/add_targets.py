"""`cskd-pipeline add-targets`."""

from __future__ import annotations

import click

from cskd_pipeline.runs.add_targets import AddTargetsRequest
from cskd_pipeline.runs.add_targets import add_targets as run

from .options import request_command
from .terminal import terminal


@request_command(AddTargetsRequest, "Store targets that a label store lacks, beside it.")
@click.argument("store")
def add_targets(request: AddTargetsRequest, store: str) -> None:
    """Store further targets of the crops in STORE, in a label store of their own.

    The teacher, recipe and data are those that STORE names; give --teacher-weights where they are not timm's own. STORE
    is not touched; train takes both. The same command continues after an interruption.

    \b
    cskd-pipeline add-targets labels.zarr --targets truth --out truth.zarr
    cskd-pipeline train --labels labels.zarr --labels truth.zarr \\
        --objective nkd --student deit_s
    """
    with terminal() as watch:
        done = run(store, request, progress=watch)
    click.echo(f"{done.crops:,} crops labelled by this process; {done.store} holds all seeds asked for")
