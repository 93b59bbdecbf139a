"""`cskd-pipeline export`."""

from __future__ import annotations

from pathlib import Path

import click

from cskd_pipeline.runs.export import export as run


@click.command(short_help="Write a trained student as a file for plain timm.")
@click.argument("run_folder", metavar="RUN", type=click.Path(path_type=Path))
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--weights",
    metavar="KIND",
    default="best",
    show_default=True,
    help="Which weights of a run folder: best, last or ema.",
)
@click.option("--hub", is_flag=True, help="Write a folder for the Hugging Face hub instead of a file.")
@click.option(
    "--import", "imports", metavar="MODULE", multiple=True, help="Import a module that registers the student with timm."
)
def export(run_folder: Path, file: Path, weights: str, hub: bool, imports: tuple[str, ...]) -> None:
    """Write the student of RUN as FILE (.safetensors or .pth), which plain timm reads.

    RUN is a run folder or a weights file that `train` wrote. The call of timm.create_model that builds the student
    from FILE is printed. With --hub, FILE is a new folder of configuration, weights and model card, which timm loads
    by itself, from here or from the hub.

    \b
    cskd-pipeline export run student.safetensors
    cskd-pipeline export run student --hub
    hf upload USER/NAME student
    """
    done = run(run_folder, file, weights=weights, hub=hub, imports=imports)
    click.echo(f"{done.file}: {done.parameters:,} parameters; in Python:")
    *others, last = done.averages or ("",)
    click.echo(done.call + (f" (it averages {', '.join(others)} and {last})" if others else ""))
