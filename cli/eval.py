"""`cskd-pipeline eval`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from cskd_pipeline.runs.evaluate import EvaluateRequest
from cskd_pipeline.runs.evaluate import evaluate as run

from .options import json_option, request_command
from .terminal import terminal


@request_command(EvaluateRequest, "Score a run folder or a weights file.", name="eval")
@click.argument("model", type=click.Path(path_type=Path))
@json_option
def evaluate(request: EvaluateRequest, model: Path, as_json: bool) -> None:
    """Score MODEL, a run folder or a weights file.

    Gives top-1, top-5 and loss for every way of combining the student's heads. A run is scored on the images that it
    was evaluated on, unless --data names others.
    """
    with terminal() as watch:
        result = run(model, request, progress=watch)
    if as_json:
        click.echo(json.dumps(result.to_json()))
        return
    click.echo(f"{result.model} on {result.data} {result.split} ({result.images:,} images)")
    for head, score in result.scores.items():
        click.echo(f"{head:<11} top-1 {score.top1:6.2f} %   top-5 {score.top5:6.2f} %   loss {score.loss:.4f}")
