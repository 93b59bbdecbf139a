"""The options of `train` that are fields of `TrainConfig`, kept here so that --help needs no torch.

tests/cli/test_train_options.py compares names and defaults with `TrainConfig`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])

# (field of TrainConfig, type, default, help). A preset, if any, comes before the default.
TRAIN_FIELDS: tuple[tuple[str, Any, Any, str], ...] = (
    ("epochs", int, 300, "Passes over the data."),
    ("batch_size", int, 1024, "Crops per update, over all processes; even where crops are mixed."),
    ("accumulation", int, 1, "Parts that a process computes its share of a batch in."),
    ("optimizer", str, "adamw", "timm's name of the optimizer."),
    ("lr", float, 1e-3, "Peak learning rate, whatever the batch size."),
    ("min_lr", float, 1e-5, "Learning rate that the cosine ends in."),
    ("warmup_epochs", int, 5, "Epochs of linear warm-up, counted in --epochs."),
    ("warmup_lr", float, 1e-6, "Learning rate that warm-up starts from."),
    ("weight_decay", float, 0.05, "Weight decay."),
    ("scheduler", click.Choice(["cosine", "constant"]), "cosine", "Course of the learning rate after warm-up."),
    ("clip_grad", float, None, "Largest gradient norm.  [default: no limit]"),
    ("ema_decay", float, 0.99996, "Decay per update of the averaged weights, 0 for no average."),
    ("drop_path", float, 0.1, "Stochastic depth rate."),
    ("precision", click.Choice(["fp32", "bf16", "fp16"]), "fp32", "Number format of the student's forward pass."),
    ("compile", bool, False, "Run the student through torch.compile."),
    ("seed", int, 0, "Of initial weights, order and drop path; crops have --seeds."),
    ("eval_every", int, 1, "Epochs between evaluations, 0 for the last only."),
    ("checkpoint_every", int, 1, "Epochs between checkpoints."),
)


def train_options(command: Command) -> Command:
    """An option for every field. Those not given are None: a preset or `TrainConfig` has the value."""
    for field, kind, default, text in reversed(TRAIN_FIELDS):
        flag = field.replace("_", "-")
        if kind is bool:
            option = click.option(f"--{flag}/--no-{flag}", field, default=None, help=text)
        else:
            shown = "" if default is None else f"  [default: {default}]"
            option = click.option(f"--{flag}", field, type=kind, default=None, help=text + shown)
        command = option(command)
    return command
