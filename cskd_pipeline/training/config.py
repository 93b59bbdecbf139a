"""The settings of a training run; the defaults are DeiT's and CSKD's (docs/training.md)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType

import torch

from cskd_pipeline.errors import UsageError
from cskd_pipeline.record import Record, require_choice, require_range

PRECISIONS: Mapping[str, torch.dtype | None] = MappingProxyType(
    {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
)
"""dtype of the forward pass under autocast; weights, losses and optimizer are fp32 in all of them."""

SCHEDULERS = ("cosine", "constant")


@dataclasses.dataclass(frozen=True, slots=True)
class TrainConfig(Record):
    """How to optimise.

    Attributes:
        epochs: passes over the source.
        batch_size: crops per update, over all ranks and accumulated micro-batches.
        accumulation: micro-batches per update and rank.
        optimizer: timm's name; one-dimensional parameters and embeddings are not decayed.
        lr: peak learning rate, as is: it is not scaled by the batch size.
        min_lr: learning rate that the cosine ends in.
        warmup_epochs: epochs of linear warm-up, counted in `epochs`.
        warmup_lr: learning rate that warm-up starts from.
        weight_decay: decoupled weight decay.
        scheduler: "cosine" or "constant" (after warm-up), stepped every update.
        clip_grad: largest gradient norm, or None.
        ema_decay: decay per update of the weights' moving average; 0 for no average.
        drop_path: stochastic depth rate; the student must be built with it.
        precision: "fp32", "bf16" or "fp16" (with loss scaling).
        compile: run the student through torch.compile.
        seed: of initial weights, drop path and dropout. Crops have seeds of their own, in the store.
        eval_every: epochs between evaluations; 0 for the last epoch alone.
        checkpoint_every: epochs between checkpoints; the last epoch always has one.
    """

    epochs: int = 300
    batch_size: int = 1024
    accumulation: int = 1
    optimizer: str = "adamw"
    lr: float = 1e-3
    min_lr: float = 1e-5
    warmup_epochs: int = 5
    warmup_lr: float = 1e-6
    weight_decay: float = 0.05
    scheduler: str = "cosine"
    clip_grad: float | None = None
    ema_decay: float = 0.99996
    drop_path: float = 0.1
    precision: str = "fp32"
    compile: bool = False
    seed: int = 0
    eval_every: int = 1
    checkpoint_every: int = 1

    def __post_init__(self) -> None:
        require_range("epochs", self.epochs, low=1)
        require_range("batch size", self.batch_size, low=1)
        require_range("accumulation", self.accumulation, low=1)
        require_range("learning rate", self.lr, above=0)
        require_range("min lr", self.min_lr, low=0)
        require_range("warm-up epochs", self.warmup_epochs, low=0)
        require_range("warm-up lr", self.warmup_lr, low=0)
        require_range("weight decay", self.weight_decay, low=0)
        require_range("ema decay", self.ema_decay, low=0, high=1)
        require_range("drop path", self.drop_path, low=0, high=0.99)
        require_range("seed", self.seed, low=0)
        require_range("eval every", self.eval_every, low=0)
        require_range("checkpoint every", self.checkpoint_every, low=1)
        require_choice("precision", self.precision, PRECISIONS)
        require_choice("scheduler", self.scheduler, SCHEDULERS)
        if self.clip_grad is not None:
            require_range("clip grad", self.clip_grad, above=0)
        if self.warmup_epochs and self.warmup_epochs >= self.epochs:
            raise UsageError(
                f"{self.warmup_epochs} warm-up epochs leave nothing of {self.epochs} epochs; lower the warm-up"
            )

    def micro_batch(self, ranks: int) -> int:
        """Crops in one micro-batch of one rank.

        Raises:
            UsageError: the batch does not divide evenly.
        """
        parts = ranks * self.accumulation
        if self.batch_size % parts:
            raise UsageError(
                f"a batch of {self.batch_size} does not divide into {ranks} ranks x {self.accumulation} micro-batches; "
                f"the nearest sizes are {self.batch_size // parts * parts} and {(self.batch_size // parts + 1) * parts}"
            )
        return self.batch_size // parts
