"""`cskd-pipeline index`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from .options import data_options, json_option


@click.command(short_help="List a data set's images in canonical order.")
@data_options()
@click.option("--split", default="train", show_default=True, metavar="NAME", help="Split to index.")
@click.option(
    "--out", type=click.Path(path_type=Path), metavar="FOLDER", help="Where to put the index.  [default: the cache]"
)
@click.option("--check", is_flag=True, help="Decode every image and name the broken ones.")
@click.option(
    "--pack",
    "packed",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="FOLDER",
    help="Copy the images to tar shards in canonical order, for slow or remote storage and train --shuffle blocks.",
)
@json_option
def index(
    data: str, data_root: str | None, split: str, out: Path | None, check: bool, packed: Path | None, as_json: bool
) -> None:
    """List a data set's images in their canonical order.

    The index holds key, label and place of every image, and a digest that labels are tied to. Other commands make it
    by themselves; use this one to look at a data set, to check its images, or to keep the index.
    """
    from tqdm import tqdm

    from cskd_pipeline.data import build_index, resolve_data
    from cskd_pipeline.data.pack import pack

    source = resolve_data(data, root=data_root)
    with tqdm(unit="image", leave=False, disable=None, file=sys.stderr) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        built = build_index(source, split, out=out, check=check, progress=progress)
        if packed is not None:
            bar.reset()
            pack(built, packed, progress=progress)
    counts = built.class_counts()
    facts = {
        "name": built.name,
        "split": built.split,
        "samples": len(built),
        "classes": len(built.classes),
        "samples_per_class": [int(counts.min()), int(counts.max())],
        "digest": built.digest,
        "folder": str(built.folder),
    }
    if as_json:
        click.echo(json.dumps(facts))
        return
    click.echo(f"{built.name} {built.split}: {len(built):,} images, {len(built.classes)} classes")
    click.echo(f"images per class: {counts.min()} to {counts.max()}")
    click.echo(f"digest: {built.digest}")
    click.echo(f"index: {built.folder}")
    if packed is not None:
        click.echo(f"packed: {packed}, which is the same data set (--data {packed})")
