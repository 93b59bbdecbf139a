"""`cskd-pipeline demo`."""

from __future__ import annotations

import json
import shlex
import time
from pathlib import Path
from typing import Any

import click

from cskd_pipeline.errors import UsageError

SIZE, STRIDE, SEEDS, TEACHER_EPOCHS, EPOCHS = 48, 16, 3, 5, 5
TEACHER = "test_resnet"  # timm's smallest: 373 thousand parameters
STUDENT_MODEL = "vit_tiny_r_s16_p8_224"  # a ViT on a convolution: a plain one learns nothing in so few steps
STUDENT = {"patch_size": 4, "embed_dim": 96, "depth": 3, "num_heads": 3}
CROPS = {"recipe": "plain", "recipe-arg": "scale=[0.5, 1.0]", "size": SIZE}
SCHEDULE = {
    "batch-size": 40, "warmup-epochs": 1, "ema-decay": 0, "drop-path": 0, "eval-every": 5, "crop-pct": 1,
}  # fmt: skip
METHODS = ("supervised", "deit", "cskd")


@click.command(short_help="See it all work on a built-in data set, in minutes.")
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("demo-run"), show_default=True, help="Work folder."
)
@click.pass_context
def demo(ctx: click.Context, out: Path) -> None:
    """Run the whole pipeline on the built-in data set in a few minutes, and compare three students.

    Draws the data set, trains a small CNN teacher, stores its labels, verifies them, trains the same small ViT with
    supervised, deit and cskd from the one store, writes a page of pictures and prints a table. Run again, it continues
    where it stopped.
    """
    began = time.monotonic()
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is a file; give a folder for the demo")
    out.mkdir(parents=True, exist_ok=True)
    teacher, store = out / "teacher", out / "labels.zarr"
    weights = teacher / "last.safetensors"
    data, crops, schedule = ["--data", "shapes"], _flags(CROPS), [*_flags(SCHEDULE), "--resume"]
    stride = f"output_stride={STRIDE}"
    student = ["--student", STUDENT_MODEL]
    for key, value in STUDENT.items():
        student += ["--student-arg", f"{key}={value}"]

    learn = ["--student", TEACHER, "--student-arg", stride, "--epochs", TEACHER_EPOCHS, "--lr", 3e-3]
    _run(ctx, "train", *data, *learn, *crops, *schedule, "--out", teacher)
    taught = ["--teacher", TEACHER, "--teacher-arg", stride, "--teacher-weights", weights]
    _run(ctx, "precompute", *data, *taught, *crops, "--seeds", f"0:{SEEDS}", "--out", store)
    _run(ctx, "verify", store, *data, "--teacher-weights", weights, "--crops", 256)
    for method in METHODS:
        learn = ["--objective", method, "--epochs", EPOCHS, "--lr", 2e-3]
        _run(ctx, "train", *data, "--labels", store, *student, *learn, *schedule, "--out", out / method)
    _run(ctx, "export", out / "cskd", out / "student.safetensors")
    pages = [store, *(out / method for method in METHODS)]
    _run(ctx, "report", *pages, *data, "--out", out / "report.html")
    click.echo(_table(out))
    click.echo(f"whole demo: {time.monotonic() - began:.0f} s; everything is in {out}, look at {out / 'report.html'}")


def _flags(settings: dict[str, Any]) -> list[Any]:
    return [word for name, value in settings.items() for word in (f"--{name}", value)]


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
        head = {"deit": "two_head", "cskd": "three_head"}.get(name, "cls")
        seconds = sum(row["seconds"] for row in rows) / len(rows)
        lines.append(f"{name:<12} {scores[head]:6.2f}% {head:<11} {seconds:8.1f}")
    summary = summarise(StoreReader(out / "labels.zarr"))
    grid = " x ".join(map(str, summary.header["grid"]))
    lines.append(
        f"\nstore: {summary.crops:,} crops of {len(summary.complete)} seeds, {grid} positions, "
        f"{summary.bytes_per_crop['total']:.1f} bytes a crop"
    )
    return "\n".join(lines)
