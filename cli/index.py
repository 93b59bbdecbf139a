"""`cskd-pipeline index`."""

from __future__ import annotations

import json

import click

from cskd_pipeline.runs.index import IndexRequest
from cskd_pipeline.runs.index import index as run
from cskd_pipeline.storage.names import shown, utf8

from .options import json_option, request_command
from .terminal import terminal


@request_command(IndexRequest, "List a data set's images in canonical order.", config=False)
@json_option
def index(request: IndexRequest, as_json: bool) -> None:
    """List a data set's images in their canonical order.

    The index holds key, label and place of every image, and a digest that labels are tied to. Other commands make it
    by themselves; use this one to look at a data set, to check its images, or to keep the index.
    """
    with terminal() as watch:
        built = run(request, progress=watch)
    counts = built.class_counts()
    facts = {
        "name": built.name,
        "split": built.split,
        "samples": len(built),
        "classes": len(built.classes),
        "samples_per_class": [int(counts.min()), int(counts.max())],
        "digest": built.digest,
        "left_out": built.left_out,
        "folder": shown(utf8(built.folder)),
    }
    if as_json:
        click.echo(json.dumps(facts))
        return
    click.echo(f"{built.name} {built.split}: {len(built):,} images, {len(built.classes)} classes")
    click.echo(f"images per class: {counts.min()} to {counts.max()}")
    if built.left_out:
        click.echo(f"left out: {built.left_out}")
    click.echo(f"digest: {built.digest}")
    click.echo(f"index: {facts['folder']}")
    if request.pack is not None:
        copy = shown(utf8(request.pack))
        click.echo(f"packed: {copy}, which is the same data set (--data {copy})")
