"""Optimizer and learning rate schedule, built by timm."""

from __future__ import annotations

from typing import Protocol

import torch
from timm.optim import create_optimizer_v2, list_optimizers  # type: ignore[attr-defined]
from timm.scheduler import create_scheduler_v2  # type: ignore[attr-defined]

from cskd_pipeline.errors import UsageError, first_line
from cskd_pipeline.models.student import Student
from cskd_pipeline.record import require_choice
from cskd_pipeline.training.config import TrainConfig


class Scheduler(Protocol):
    """timm's schedulers, as far as they are used: a function of the update count without a state of its own."""

    def step_update(self, num_updates: int) -> None:
        """Set the learning rates of update number `num_updates`."""


def create_optimizer(student: Student, config: TrainConfig) -> torch.optim.Optimizer:
    """timm's optimizer of that name; biases, norms and what the model exempts (embeddings, tokens) are not decayed.

    Raises:
        UsageError: timm has no such optimizer, cannot build it here, or it needs second derivatives.
    """
    require_choice("optimizer", config.optimizer, map(str, list_optimizers()))
    try:
        optimizer: torch.optim.Optimizer = create_optimizer_v2(
            student, opt=config.optimizer, lr=config.lr, weight_decay=config.weight_decay
        )
    # Missing packages, a missing GPU, settings it refuses: each optimizer has its own way of saying so.
    except Exception as error:
        raise UsageError(
            f"timm cannot build the optimizer {config.optimizer} here: {first_line(error)}; choose another, such as "
            "adamw"
        ) from error
    if getattr(optimizer, "is_second_order", False):
        raise UsageError(
            f"the optimizer {config.optimizer} needs second derivatives, which training does not compute; "
            "choose another, such as adamw"
        )
    return optimizer


def create_scheduler(optimizer: torch.optim.Optimizer, config: TrainConfig, *, updates_per_epoch: int) -> Scheduler:
    """Linear warm-up, then the configured course, in steps of one update."""
    scheduler, _ = create_scheduler_v2(
        optimizer,
        sched=config.scheduler,
        num_epochs=config.epochs,
        min_lr=config.min_lr,
        warmup_lr=config.warmup_lr,
        warmup_epochs=config.warmup_epochs,
        step_on_epochs=False,
        updates_per_epoch=updates_per_epoch,
    )
    stepping: Scheduler = scheduler
    return stepping
