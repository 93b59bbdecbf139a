"""`cskd-pipeline demo`."""

from __future__ import annotations

import json
import shlex
import time
from pathlib import Path
from typing import Any

import click

MANIFEST = """\
# A small draw of the built-in set: what the demo trains on.
name: shapes
description: Sixteen kinds of shapes over clutter, drawn on the spot.
splits:
  train: {source: generated, count: 3000}
  val: {source: generated, count: 800}
"""

SIZE, GRID_STRIDE, SEEDS, TEACHER_EPOCHS, EPOCHS = 48, 8, 4, 10, 12
STUDENT = {"img_size": SIZE, "patch_size": 8, "embed_dim": 96, "depth": 4, "num_heads": 3}
METHODS = ("supervised", "deit", "cskd")


@click.command(short_help="See it all work on a built-in data set, in minutes.")
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("demo-run"), show_default=True, help="Work folder."
)
@click.pass_context
def demo(ctx: click.Context, out: Path) -> None:
    """Run the whole pipeline on the built-in data set in a few minutes, and compare three students.

    Draws the data set, trains a small CNN teacher, stores its labels, verifies them, trains the same small ViT with
    supervised, deit and cskd from the one store, and prints a table. Run again, it goes on where it stopped.
    """
    began = time.monotonic()
    out.mkdir(parents=True, exist_ok=True)
    data = out / "shapes.yaml"
    data.write_text(MANIFEST)
    teacher, store = out / "teacher", out / "labels.zarr"
    schedule = ["--batch-size", "100", "--warmup-epochs", "1", "--ema-decay", "0", "--drop-path", "0"]
    schedule += ["--eval-every", "4", "--crop-pct", "1"]

    _run(ctx, "train", "--data", data, "--student", "resnet10t", "--recipe", "plain", "--size", SIZE,
         "--epochs", TEACHER_EPOCHS, "--lr", 3e-3, *schedule, "--out", teacher, "--resume")  # fmt: skip
    taught = ["--teacher", "resnet10t", "--teacher-weights", teacher / "last.safetensors"]
    _run(ctx, "precompute", "--data", data, *taught, "--teacher-arg", f"output_stride={GRID_STRIDE}", "--size", SIZE,
         "--recipe-arg", "rand_augment=null", "--recipe-arg", "scale=[0.35, 1.0]",
         "--seeds", f"0:{SEEDS}", "--out", store)  # fmt: skip
    _run(ctx, "verify", store, "--data", data, "--teacher-weights", teacher / "last.safetensors", "--crops", 256)
    student = [part for key, value in STUDENT.items() for part in ("--student-arg", f"{key}={value}")]
    for method in METHODS:
        _run(ctx, "train", "--data", data, "--labels", store, "--student", "deit_ti", *student,
             "--objective", method, "--epochs", EPOCHS, "--lr", 2e-3, *schedule,
             "--out", out / method, "--resume")  # fmt: skip
    _run(ctx, "export", out / "cskd", out / "student.safetensors")
    click.echo(_table(out))
    click.echo(f"whole demo: {time.monotonic() - began:.0f} s; everything is in {out}")


def _run(ctx: click.Context, command: str, *arguments: Any) -> None:
    """Show a command and run it in this process."""
    texts = [str(argument) for argument in arguments]
    click.echo(click.style(f"\n$ cskd-pipeline {command} {shlex.join(texts)}", bold=True))
    parent = ctx.parent
    assert parent is not None and isinstance(parent.command, click.Group)
    parent.command.commands[command].main(texts, prog_name=f"cskd-pipeline {command}", standalone_mode=False)


def _table(out: Path) -> str:
    from cskd_pipeline.store import StoreReader, summarise

    lines = ["", f"{'run':<12} {'top-1':>7} {'heads':<11} {'s/epoch':>8}"]
    for name in ("teacher", *METHODS):
        rows = [json.loads(line) for line in (out / name / "metrics.jsonl").read_text().splitlines()]
        scores = {key.split("/")[1]: value for key, value in rows[-1].items() if key.endswith("/top1")}
        head = {"teacher": "cls", "cskd": "three_head"}.get(name, "two_head")
        seconds = sum(row["seconds"] for row in rows) / len(rows)
        lines.append(f"{name:<12} {scores[head]:6.2f}% {head:<11} {seconds:8.1f}")
    summary = summarise(StoreReader(out / "labels.zarr"))
    grid = " x ".join(map(str, summary.header["grid"]))
    lines.append(
        f"\nstore: {summary.crops:,} crops of {len(summary.complete)} seeds, {grid} positions, "
        f"{summary.bytes_per_crop['total']:.1f} bytes a crop"
    )
    return "\n".join(lines)
