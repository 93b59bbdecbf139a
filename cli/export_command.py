"""`cskd-pipeline export`."""

from __future__ import annotations

import io
from pathlib import Path

import click

from cskd_pipeline.errors import UsageError


@click.command(short_help="Write a trained student as a file for plain timm.")
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--weights",
    metavar="KIND",
    default="best",
    show_default=True,
    help="Which weights of a run folder: best, last or ema.",
)
def export(run: Path, file: Path, weights: str) -> None:
    """Write the student of RUN as FILE (.safetensors or .pth), which plain timm reads.

    RUN is a run folder or a weights file that `train` wrote. The call of timm.create_model that builds the student
    from FILE is printed.
    """
    import torch

    from cskd_pipeline.checkpoint import save_model
    from cskd_pipeline.models.student import parameter_count, plain_state_dict
    from cskd_pipeline.storage.durable import write_atomic

    from .trained_model import open_model, weights_file

    if file.suffix not in (".safetensors", ".pth"):
        raise UsageError(f"the file must end in .safetensors or .pth, found {file.name!r}")
    if not file.absolute().parent.is_dir():
        raise UsageError(f"the folder {file.parent} does not exist; make it first")
    loaded = open_model(weights_file(run, weights=weights))
    student = loaded.student
    state = plain_state_dict(student)
    if file.suffix == ".pth":
        buffer = io.BytesIO()  # torch hides the cause of a failing write
        torch.save(state, buffer)
        write_atomic(file, lambda handle: handle.write(buffer.getbuffer()))
    else:
        save_model(file, state, metadata={"student": student.spec.to_json()})
    arguments = "".join(f", {key}={value!r}" for key, value in student.spec.args.items())
    heads = " (it averages head and head_dist)" if "head_dist.weight" in state else ""
    click.echo(f"{file}: {parameter_count(student.model):,} parameters; in Python:")
    click.echo(
        f"timm.create_model({student.spec.model!r}, num_classes={student.spec.classes}{arguments}, "
        f"checkpoint_path={str(file)!r}){heads}"
    )
