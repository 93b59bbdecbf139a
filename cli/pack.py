"""`cskd-pipeline pack`."""

from __future__ import annotations

import json

import click

from cskd_pipeline.runs.pack import PackRequest
from cskd_pipeline.runs.pack import pack as run
from cskd_pipeline.storage.names import shown, utf8

from .options import json_option, request_command
from .terminal import terminal


@request_command(PackRequest, "Copy a data set, also from parquet, to tar shards.", config=False)
@json_option
def pack(request: PackRequest, as_json: bool) -> None:
    """Copy images to uncompressed tar shards, which every other command reads.

    \b
    cskd-pipeline pack --data hub/imagenet-1k --out tars     parquet files
    cskd-pipeline pack --data folders --out tars             for slow disks

    The bytes of the images stay as they are. Keys, labels and digest of what other commands read are kept: labels that
    were stored for the one are labels of the other.
    """
    with terminal() as watch:
        packed = run(request, progress=watch)
    folder = shown(utf8(packed.folder))
    if as_json:
        shards = {split: [file.name for file in files] for split, files in packed.shards.items()}
        click.echo(json.dumps({"folder": folder, "classes": len(packed.classes), "shards": shards}))
        return
    for split, files in packed.shards.items():
        click.echo(f"{split}: {packed.images[split]:,} images of {len(packed.classes)} classes in {len(files)} shards")
    click.echo(f"packed: --data {folder}")
