"""`cskd-pipeline report`."""

from __future__ import annotations

import click

from cskd_pipeline.runs.report import ReportRequest
from cskd_pipeline.runs.report import report as run

from .options import request_command
from .terminal import terminal


@request_command(ReportRequest, "Write a page of pictures about labels and runs.")
@click.argument("places", metavar="STORE|RUN...", nargs=-1, required=True)
def report(request: ReportRequest, places: tuple[str, ...]) -> None:
    """Write a page about label stores and runs: one HTML file that needs no network and no scripts.

    Of a store: crops with their labels, how these move from local to global, where they agree with each other and with
    the true classes, bytes, fidelity, completeness. Of runs: their curves and results side by side, the settings in
    which they differ, their commands.

    \b
    cskd-pipeline report labels.zarr run-1 run-2 --out page.html
    """
    with terminal() as watch:
        done = run(places, request, progress=watch)
    for line in done.missing:
        click.echo(line, err=True)
    click.echo(f"{done.file}")
