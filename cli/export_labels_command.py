"""`cskd-pipeline export-labels`."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import click

from cskd_pipeline.errors import DataError

from .label_targets import target_settings
from .options import json_option, say

if TYPE_CHECKING:
    from cskd_pipeline.store import StoreReader


@click.command(short_help="Copy a label store, or a part of it, to publish it.")
@click.argument("store")
@click.argument("out")
@click.option(
    "--seeds",
    metavar="LIST",
    help="Complete seeds to copy: 7, 0:30 (30 not included) or 0:10,20.  [default: all complete ones]",
)
@click.option(
    "--targets", metavar="LIST", help="Targets to copy, such as hard or hard,soft.  [default: what the store has]"
)
@click.option(
    "--license",
    metavar="TEXT",
    help="Licence of the labels, for the card: an identifier such as cc-by-nc-4.0, or any text.  [default: other]",
)
@json_option
def export_labels(
    store: str, out: str, seeds: str | None, targets: str | None, license: str | None, as_json: bool
) -> None:
    """Copy complete seeds of STORE to OUT, a folder or a URL such as s3://bucket/path.

    Every file is compared with its checksum on the way. OUT is a label store like any other; with all targets its
    digest is that of the same seeds of STORE. The same command goes on after an interruption, and with other --seeds
    it adds to OUT. A data set card, README.md, is written beside the labels unless there is one.

    \b
    cskd-pipeline export-labels labels.zarr publish/labels.zarr \\
        --seeds 0:30 --targets hard
    hf upload USER/NAME publish/labels.zarr --repo-type dataset
    """
    from tqdm import tqdm

    from cskd_pipeline.publish.card import require_license, write_card
    from cskd_pipeline.publish.copying import copy_seeds
    from cskd_pipeline.seeds import format_seeds, parse_seeds
    from cskd_pipeline.storage import open_storage
    from cskd_pipeline.store import StoreReader, summarise

    chosen = None if seeds is None else parse_seeds(seeds)
    encodings = None if targets is None else [*target_settings(targets, ())]
    require_license(license)
    target = open_storage(out)
    reader = StoreReader(store)
    if chosen is None:
        chosen = _complete_seeds(reader)
    with tqdm(unit="B", unit_scale=True, leave=False, disable=None, file=sys.stderr) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        def report(line: str) -> None:
            bar.write(line, file=sys.stderr)

        copied = copy_seeds(reader, target, chosen, encodings=encodings, progress=progress, report=report)
    summary = summarise(StoreReader(target))
    written = write_card(target, summary, license=license)
    if not written:
        say(f"{target.at('README.md')} was left as it is, for it is not one that this command wrote")
    size = sum(sum(seed.bytes.values()) for seed in summary.seeds)
    if as_json:
        facts = {"out": target.address, "seeds": summary.complete, "crops": summary.crops, "bytes": size}
        facts |= {"digest": summary.digest, "blocks_copied": copied.blocks, "blocks_present": copied.present}
        click.echo(json.dumps({**facts, "card_written": written}))
        return
    click.echo(
        f"{out}: seeds {format_seeds(summary.complete)}, {summary.crops:,} crops, {size:,} bytes, "
        f"digest {summary.digest}"
    )


def _complete_seeds(reader: StoreReader) -> list[int]:
    """All of a store; the others are named on stderr."""
    begun, blocks = reader.begun(), reader.header.blocks
    complete = [seed for seed, done in begun.items() if len(done) == blocks]
    if not complete:
        raise DataError(f"{reader.path} has no complete seed; `cskd-pipeline precompute` finishes one")
    for seed, done in begun.items():
        if len(done) < blocks:
            say(f"seed {seed} is left out: it is incomplete, {len(done)} of {blocks} blocks")
    return complete
