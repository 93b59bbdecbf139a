"""`cskd-pipeline status`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from .options import json_option


@click.command(short_help="Show how far each seed of a label store is.")
@click.argument("store", type=click.Path(path_type=Path))
@json_option
def status(store: Path, as_json: bool) -> None:
    """Show how far each seed of STORE is."""
    from cskd_pipeline.store import StoreReader, summarise

    summary = summarise(StoreReader(store))
    if as_json:
        rows = [{"seed": s.seed, "blocks": s.blocks, "of": summary.blocks, "crops": s.crops} for s in summary.seeds]
        click.echo(json.dumps(rows))
        return
    for seed in summary.seeds:
        click.echo(f"seed {seed.seed:>4}: {seed.blocks}/{summary.blocks} blocks, {seed.crops:,} crops")
    click.echo(f"{len(summary.complete)} of {len(summary.seeds)} begun seeds are complete")
