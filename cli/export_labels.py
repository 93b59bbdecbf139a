"""`cskd-pipeline export-labels`."""

from __future__ import annotations

import json

import click

from cskd_pipeline.runs.export_labels import ExportLabelsRequest
from cskd_pipeline.runs.export_labels import export_labels as run
from cskd_pipeline.seeds import format_seeds

from .options import json_option, request_command
from .terminal import terminal


@request_command(ExportLabelsRequest, "Copy a label store, or a part of it, to publish it.", config=False)
@click.argument("store")
@click.argument("out")
@json_option
def export_labels(request: ExportLabelsRequest, store: str, out: str, as_json: bool) -> None:
    """Copy complete seeds of STORE to OUT: a folder, s3://bucket/path, or hf://USER/NAME on the Hugging Face hub.

    Every file is compared with its checksum on the way. OUT is a label store like any other; with all targets its
    digest is that of the same seeds of STORE. The same command continues after an interruption, and with other --seeds
    it adds to OUT. A data set card, README.md, is written beside the labels unless there is one.

    \b
    cskd-pipeline export-labels labels.zarr publish/labels.zarr \\
        --seeds 0:30 --targets hard
    cskd-pipeline export-labels labels.zarr hf://USER/NAME
    """
    with terminal() as watch:
        done = run(store, out, request, progress=watch)
    summary = done.summary
    size = sum(sum(seed.bytes.values()) for seed in summary.seeds)
    if as_json:
        facts = {"out": summary.path, "seeds": summary.complete, "crops": summary.crops, "bytes": size}
        facts |= {"digest": summary.digest, "blocks_copied": done.copied.blocks, "blocks_present": done.copied.present}
        click.echo(json.dumps({**facts, "card_written": done.card_written}))
        return
    click.echo(
        f"{out}: seeds {format_seeds(summary.complete)}, {summary.crops:,} crops, {size:,} bytes, "
        f"digest {summary.digest}"
    )
