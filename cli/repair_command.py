"""`cskd-pipeline repair`."""

from __future__ import annotations

from pathlib import Path

import click

from cskd_pipeline.errors import DataError

from .config_file import config_option
from .options import data_options, machine_options, require_context, require_file, say, worker_count
from .store_job import store_job


@click.command(short_help="Make what is bad in a label store again.")
@click.argument("store")
@data_options(required=False)
@click.option(
    "--teacher-weights",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The teacher's weights (.safetensors, .pth).  [default: timm's pretrained ones]",
)
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
    from cskd_pipeline.precompute.repair import remake
    from cskd_pipeline.storage import open_storage
    from cskd_pipeline.store import (
        StoreReader,
        StoreWriter,
        begun_blocks,
        check_files,
        check_tree,
        recover_root,
        rewrite_metadata,
    )

    if data is None:
        require_context(ctx, ("teacher_weights", "device", "workers", "data_root"), without="--data")
    require_file("--teacher-weights", teacher_weights)
    processes = worker_count(workers)
    storage = open_storage(store)
    if recover_root(storage):
        click.echo(f"{storage.at('zarr.json')}: written again from a seed's attributes")
    reader = StoreReader(storage)
    storage.sweep()
    for path in rewrite_metadata(reader):
        click.echo(f"{path}: written again")
    bad = {(seed, block) for seed, block, files in check_files(reader) if files}
    cut = {(seed, block) for seed, blocks in begun_blocks(reader).items() for block in blocks}
    units = sorted(bad | cut)
    if units and data is None:
        raise DataError(
            f"{len(units)} blocks of {store} must be computed again (seed and block: {_some(units)}); give --data and "
            "--teacher-weights, what the store was made of"
        )
    if units:
        job = store_job(reader, data or "", data_root, teacher_weights, device=device)
        say(f"computing {len(units)} blocks again: {_some(units)}")
        crops = remake(job, StoreWriter(storage, reader.header), units, workers=processes, report=say)
        click.echo(f"{len(units)} blocks made again ({crops:,} crops)")
    left = [file for _, _, files in check_files(reader) for file in files]
    foreign = [file for file in check_tree(reader) if file.remedy == "remove"]
    for file in foreign:
        click.echo(f"{file.path}: {file.found}; it is left where it is")
    if left:
        raise DataError(f"{store} still has {len(left)} bad files, the first is {left[0].path}: {left[0].found}")
    click.echo(f"{store} is well" + (f", but for {len(foreign)} files that are none of its own" if foreign else ""))


def _some(units: list[tuple[int, int]]) -> str:
    shown = ", ".join(f"{seed} {block}" for seed, block in units[:5])
    return shown + (f" and {len(units) - 5} more" if len(units) > 5 else "")
