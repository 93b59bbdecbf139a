"""`cskd-pipeline repair`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from .config_file import config_option
from .options import machine_options, require_context, require_file, say, worker_count
from .store_job import source_options, store_job

if TYPE_CHECKING:
    from cskd_pipeline.labelling import PrecomputeJob
    from cskd_pipeline.store import StoreReader


@click.command(short_help="Make what is bad in a label store again.")
@click.argument("store")
@source_options
@machine_options
@config_option
@click.pass_context
def repair(
    ctx: click.Context,
    /,
    store: str,
    data: str | None,
    data_root: str | None,
    teacher_weights: Path | None,
    device: str | None,
    workers: str,
) -> None:
    """Make what `verify` finds in STORE well again.

    Attributes are written anew, and with --data exactly the bad blocks are computed again, by the teacher that the
    store names; give --teacher-weights where they are not timm's own. Blocks that are well are not touched, nor are
    files that are none of the store's. Seeds that were never finished are left to `precompute`.
    """
    from cskd_pipeline.labelling import repair as run
    from cskd_pipeline.storage import open_storage

    if data is None:
        require_context(ctx, ("teacher_weights", "device", "workers", "data_root"), without="--data")
    require_file("--teacher-weights", teacher_weights)
    processes = worker_count(workers)

    def make_job(reader: StoreReader) -> PrecomputeJob:
        return store_job(reader, data or "", data_root, teacher_weights, device=device)

    done = run(open_storage(store), None if data is None else make_job, workers=processes, report=say)
    for path in done.rewritten:
        click.echo(f"{path}: written again")
    for seed, block in done.units:
        click.echo(f"seed {seed} block {block}: computed again")
    for file in done.foreign:
        click.echo(f"{file.path}: {file.found}; it was left where it is")
    mended = f"{len(done.rewritten)} attribute files written and {len(done.units)} blocks computed again"
    click.echo(f"{store} is well: {mended}, files that are none of its own: {len(done.foreign)}")
