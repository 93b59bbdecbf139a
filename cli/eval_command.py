"""`cskd-pipeline eval`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from .config_file import config_option
from .key_value import KeyValue
from .options import (
    data_options,
    is_index,
    json_option,
    machine_options,
    open_data,
    require_fraction,
    split_to_score,
    worker_count,
)


@click.command("eval", short_help="Score a run folder or a weights file.")
@click.argument("model", type=click.Path(path_type=Path))
@data_options()
@click.option("--split", metavar="NAME", help="Split to score.  [default: val, else test]")
@click.option(
    "--weights",
    metavar="KIND",
    default="best",
    show_default=True,
    help="Which weights of a run folder: best, last or ema.",
)
@click.option("--student", metavar="MODEL", help="Model of a weights file that does not say it: a name of timm.")
@click.option(
    "--student-arg",
    "student_args",
    type=KeyValue(),
    multiple=True,
    help="With --student, an argument for timm's constructor, such as img_size=64; may be repeated.",
)
@click.option(
    "--size", type=click.IntRange(1), help="Side of the images in pixels.  [default: the run's, or the model's]"
)
@click.option("--crop-pct", type=float, help="Share of the image that the model sees.  [default: the run's, or 0.875]")
@click.option("--batch-size", type=click.IntRange(1), default=256, show_default=True, help="Images per forward pass.")
@machine_options
@config_option
@json_option
def evaluate(
    model: Path,
    data: str,
    data_root: str | None,
    split: str | None,
    weights: str,
    student: str | None,
    student_args: tuple[tuple[str, Any], ...],
    size: int | None,
    crop_pct: float | None,
    batch_size: int,
    device: str | None,
    workers: str,
    as_json: bool,
) -> None:
    """Score MODEL, a run folder or a weights file.

    Gives top-1, top-5 and loss for every way of combining the student's heads.
    """
    from cskd_pipeline.data import open_index
    from cskd_pipeline.errors import UsageError
    from cskd_pipeline.evaluation import evaluate as run
    from cskd_pipeline.loading import EvaluationSet
    from cskd_pipeline.models.timm_model import normalisation
    from cskd_pipeline.runtime.device import choose_device

    from .trained_model import open_model, weights_file

    if crop_pct is not None:
        require_fraction("--crop-pct", crop_pct)
    file = weights_file(model, weights=weights)
    chosen = split or (open_index(Path(data)).split if is_index(data) else split_to_score(data, data_root))
    if chosen is None:
        raise UsageError(f"{data} has neither a val nor a test split; name one with --split")
    place = choose_device(device)
    index = open_data(data, chosen, data_root)
    loaded = open_model(file, student=student, args=dict(student_args), classes=len(index.classes))
    mean, std = normalisation(loaded.student.model)
    evaluation = EvaluationSet(
        index=index,
        size=size or loaded.size,
        crop_pct=crop_pct or loaded.crop_pct,
        mean=mean,
        std=std,
        device=place,
        batch=batch_size,
        workers=worker_count(workers),
    )
    scores = run({"model": loaded.student.to(place)}, evaluation(), device=place)["model"]
    if as_json:
        facts = {"model": str(loaded.file), "split": chosen, "images": len(index)}
        rows = {head: {"top1": s.top1, "top5": s.top5, "loss": s.loss} for head, s in scores.items()}
        click.echo(json.dumps({**facts, "scores": rows}))
        return
    click.echo(f"{loaded.file} on {index.name} {chosen} ({len(index):,} images)")
    for head, score in scores.items():
        click.echo(f"{head:<11} top-1 {score.top1:6.2f} %   top-5 {score.top5:6.2f} %   loss {score.loss:.4f}")
