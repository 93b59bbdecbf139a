"""`cskd-pipeline inspect`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from cskd_pipeline.labels.choice import described
from cskd_pipeline.runs.inspect import inspect as run
from cskd_pipeline.runs.source import origin
from cskd_pipeline.seeds import format_seeds

from .options import json_option

if TYPE_CHECKING:
    from cskd_pipeline.store import Fidelity

MAX_SEEDS = 8
"""Seeds up to which each is shown by itself."""

MAX_ROWS = 10
"""Outputs of the teacher that are shown."""


@click.command(short_help="Show what a label store holds.")
@click.argument("store")
@json_option
def inspect(store: str, as_json: bool) -> None:
    """Show what STORE holds.

    That is its data, recipe, teacher, targets and seeds, bytes a crop by field, how close the stored targets are to
    what the teacher said, and the software that wrote it.
    """
    from cskd_pipeline.store import StoreHeader, mean_fidelity

    summary = run(store)
    if as_json:
        click.echo(json.dumps(summary.to_json()))
        return
    origin(StoreHeader.from_json(summary.header), where=summary.path)
    header = summary.header
    data, teacher, recipe = header["data"], header["teacher"], header["recipe"]
    click.echo(f"store      {summary.path} (format {header['format_version']})")
    click.echo(
        f"data       {data['name']} {data['split']}: {data['samples']:,} images, {data['classes']} classes, "
        f"digest {data['digest']}"
    )
    click.echo(f"teacher    {teacher['model']}, weights {teacher['weights']}, {teacher['precision']}")
    click.echo(
        f"           arguments {teacher['args'] or 'none'}, chunk {teacher['chunk']}, global {teacher['global_source']}"
    )
    if teacher.get("rows"):
        rows = teacher["rows"]
        shown = ", ".join(map(str, rows[:MAX_ROWS])) + (", ..." if len(rows) > MAX_ROWS else "")
        click.echo(f"           its outputs {shown} are the classes")
    click.echo(f"           input normalised by mean {teacher['mean']}, std {teacher['std']}")
    if summary.teacher_check is not None:
        click.echo(f"           {summary.teacher_check}")
        for warning in summary.teacher_check.warnings:
            click.echo(f"           warning: {warning}")
    click.echo(f"grid       {header['grid'][0]} x {header['grid'][1]}")
    click.echo(f"recipe     {recipe['name']} version {recipe['version']}, size {recipe['size']}, key {recipe['key']}")
    details = ("scale", "ratio", "flip", "rand_augment", "erase", "mixup", "cutmix", "label_smoothing", "group")
    click.echo("           " + ", ".join(f"{name} {recipe[name]}" for name in details))
    for name, settings in header["encodings"].items():
        click.echo(f"targets    {name}: {described(settings)}")
    click.echo(
        f"seeds      {len(summary.complete)} complete of {len(summary.seeds)} begun: "
        f"{format_seeds(summary.complete) or 'none'} ({summary.blocks} blocks of {header['block']:,})"
    )
    for seed in summary.seeds:
        if seed.blocks < summary.blocks:
            click.echo(f"           seed {seed.seed} has {seed.blocks} of {summary.blocks} blocks")
    for problem in summary.unreadable:
        click.echo(f"           {problem}")
    click.echo(f"crops      {summary.crops:,}")
    for name, value in summary.bytes_per_crop.items():
        click.echo(f"           {name:<15} {value:8.2f} bytes a crop")
    if len(summary.seeds) <= MAX_SEEDS:
        for seed in summary.seeds:
            _show_fidelity(f"seed {seed.seed}", seed.fidelity)
    else:
        whose = f"mean of {len(summary.seeds)} seeds (--json has each)"
        _show_fidelity(whose, mean_fidelity(seed.fidelity for seed in summary.seeds))
    click.echo(f"digest     {summary.digest}")
    for versions in summary.writers:
        click.echo("written by " + ", ".join(f"{name} {version}" for name, version in versions.items()))


def _show_fidelity(whose: str, fidelity: Fidelity) -> None:
    for name, values in fidelity.items():
        measured = ", ".join(f"{key} {value:.6g}" for key, value in values.items() if key != "crops")
        click.echo(f"fidelity   {whose}, {name}: {measured} (on {values['crops']:,} crops)")
