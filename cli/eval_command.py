"""`cskd-pipeline eval`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from .key_value import KeyValue
from .options import data_options, json_option, machine_options, open_data, worker_count


@click.command("eval")
@click.argument("model", type=click.Path(path_type=Path))
@data_options()
@click.option("--split", help="Which split.  [default: val, else test]")
@click.option("--weights", default="best", show_default=True, help="Of a run folder: best, last or ema.")
@click.option("--student", help="timm model of a bare weights file.")
@click.option("--student-arg", "student_args", type=KeyValue(), multiple=True, help="For timm: img_size=64.")
@click.option("--size", type=int, help="Side of the crops in pixels.  [default: the model's]")
@click.option("--crop-pct", type=float, default=0.875, show_default=True, help="Centre crop's share.")
@click.option("--batch-size", type=click.IntRange(1), default=256, show_default=True)
@machine_options
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
    crop_pct: float,
    batch_size: int,
    device: str | None,
    workers: str,
    as_json: bool,
) -> None:
    """Score MODEL, a run folder or a weights file, on a split: top-1, top-5 and loss by way of combining heads."""
    from cskd_pipeline.errors import UsageError
    from cskd_pipeline.evaluate import evaluate as run
    from cskd_pipeline.manifest import evaluation_split, resolve_data
    from cskd_pipeline.replay import EvaluationSet
    from cskd_pipeline.student.timm_model import normalisation
    from cskd_pipeline.train import choose_device

    from .trained_model import open_model

    chosen = split or evaluation_split(resolve_data(data, root=data_root))
    if chosen is None:
        raise UsageError(f"{data} has neither a val nor a test split; name one with --split")
    if not 0 < crop_pct <= 1:
        raise UsageError(f"--crop-pct must be above 0 and at most 1, found {crop_pct}")
    place = choose_device(device)
    index = open_data(data, chosen, data_root)
    loaded = open_model(model, weights=weights, student=student, args=dict(student_args), classes=len(index.classes))
    mean, std = normalisation(loaded.student.model)
    evaluation = EvaluationSet(
        index=index,
        size=size or loaded.size,
        crop_pct=crop_pct,
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
