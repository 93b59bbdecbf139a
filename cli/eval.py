"""`cskd-pipeline eval`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from cskd_pipeline.runs.evaluate import EvaluateRequest
from cskd_pipeline.runs.evaluate import evaluate as run

from .config_file import config_option
from .options import GroupedCommand, given, json_option, request_options
from .terminal import terminal


@click.command("eval", cls=GroupedCommand, short_help="Score a run folder or a weights file.")
@click.argument("model", type=click.Path(path_type=Path))
@request_options(EvaluateRequest)
@config_option
@json_option
@click.pass_context
def evaluate(ctx: click.Context, /, model: Path, as_json: bool, **options: Any) -> None:
    """Score MODEL, a run folder or a weights file.

    Gives top-1, top-5 and loss for every way of combining the student's heads. A run is scored on the images that it
    was evaluated on, unless --data names others.
    """
    with terminal() as watch:
        result = run(model, EvaluateRequest.of(**given(ctx, EvaluateRequest)), progress=watch)
    if as_json:
        click.echo(json.dumps(result.to_json()))
        return
    click.echo(f"{result.model} on {result.data} {result.split} ({result.images:,} images)")
    for head, score in result.scores.items():
        click.echo(f"{head:<11} top-1 {score.top1:6.2f} %   top-5 {score.top5:6.2f} %   loss {score.loss:.4f}")
