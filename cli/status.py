"""`cskd-pipeline status`."""

from __future__ import annotations

import contextlib
import json
import time
from typing import TYPE_CHECKING

import click

from cskd_pipeline.errors import UsageError
from cskd_pipeline.runs.inspect import status as run
from cskd_pipeline.seeds import format_seeds
from cskd_pipeline.wording import duration

from .options import json_option

if TYPE_CHECKING:
    from cskd_pipeline.store.progress import StoreProgress

MAX_SEEDS = 20
"""Complete seeds up to which each is shown by itself; those at work always are."""


@click.command(short_help="Show how far a label store is, and who is at work on it.")
@click.argument("store")
@click.option("--watch", is_flag=True, help="Show it again and again, until all begun seeds are complete.")
@click.option(
    "--every", metavar="SECONDS", type=float, default=10.0, show_default=True, help="With --watch, how often."
)
@json_option
def status(store: str, watch: bool, every: float, as_json: bool) -> None:
    """Show how far each seed of STORE is and which processes are at work on it, also while they are.

    It lists files and reads none of the labels: `verify` says whether they are well.
    """
    if every < 0.1:
        raise UsageError(f"--every must be at least 0.1 seconds, found {every:g}")
    with contextlib.suppress(*((KeyboardInterrupt,) if watch else ())):  # how watching ends
        while True:
            progress = run(store)
            if watch and not as_json:
                click.clear()  # nothing where the output is no terminal
            click.echo(json.dumps(progress.to_json())) if as_json else _show(progress)
            working = any(writer.at_work for writer in progress.writers)
            if not watch or (len(progress.complete) == len(progress.seeds) and not working):
                return
            time.sleep(every)


def _show(progress: StoreProgress) -> None:
    complete = {*progress.complete}
    for seed in progress.seeds:
        if seed.seed in complete and len(complete) > MAX_SEEDS:
            continue
        claimed = f", {seed.claimed} in work" if seed.claimed else ""
        missing = f", {seed.missing} missing" if seed.missing else ""
        click.echo(f"seed {seed.seed:>4}: {seed.done}/{progress.blocks} blocks{claimed}{missing}, {seed.crops:,} crops")
    for writer in progress.writers:
        state = f"{writer.crops_s:,.1f} crops/s" if writer.at_work else f"silent for {writer.silent_s:,.0f} s"
        click.echo(f"writer on {writer.host} ({writer.name}): {state}")
    shown = f" ({format_seeds(progress.complete)})" if len(complete) > MAX_SEEDS else ""
    click.echo(f"{len(complete)} of {len(progress.seeds)} begun seeds are complete{shown}")
    if progress.left_s is not None:
        click.echo(f"{progress.crops_s:,.1f} crops/s, {duration(progress.left_s)} to go")
