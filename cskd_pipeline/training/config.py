"""The settings of a training run; the defaults are DeiT's and CSKD's (docs/training.md)."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal

from cskd_pipeline.errors import UsageError
from cskd_pipeline.settings import Settings, setting


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig(Settings):
    """How to optimise."""

    noun: ClassVar[str] = "training"

    epochs: int = setting(300, "Passes over the data.", group="schedule", low=1)
    batch_size: int = setting(
        1024, "Crops per update, over all processes; even where crops are mixed.", group="schedule", low=1
    )
    accumulation: int = setting(1, "Parts that a process computes its share of a batch in.", group="schedule", low=1)
    optimizer: str = setting(
        "adamw",
        "timm's name of the optimizer; one-dimensional parameters and embeddings are not decayed.",
        group="schedule",
        metavar="NAME",
    )
    lr: float = setting(1e-3, "Peak learning rate, whatever the batch size.", group="schedule", above=0)
    min_lr: float = setting(1e-5, "Learning rate that the cosine ends in.", group="schedule", low=0)
    warmup_epochs: int = setting(5, "Epochs of linear warm-up, counted in --epochs.", group="schedule", low=0)
    warmup_lr: float = setting(1e-6, "Learning rate that warm-up starts from.", group="schedule", low=0)
    weight_decay: float = setting(0.05, "Decoupled weight decay.", group="schedule", low=0)
    scheduler: Literal["cosine", "constant"] = setting(
        "cosine", "Course of the learning rate after warm-up, stepped every update.", group="schedule"
    )
    clip_grad: float | None = setting(None, "Largest gradient norm.", group="schedule", shown="no limit", above=0)
    ema_decay: float = setting(
        0.99996, "Decay per update of the averaged weights, 0 for no average.", group="schedule", low=0, high=1
    )
    drop_path: float = setting(0.1, "Stochastic depth rate.", group="schedule", low=0, high=0.99)
    precision: Literal["fp32", "bf16", "fp16"] = setting(
        "fp32",
        "Number format of the student's forward pass; weights, losses and optimizer are fp32. fp16 scales the loss.",
        group="schedule",
    )
    compile: bool = setting(False, "Run the student through torch.compile.", group="schedule", off=True)
    seed: int = setting(0, "Of initial weights, order and drop path; crops have --seeds.", group="schedule", low=0)
    eval_every: int = setting(1, "Epochs between evaluations, 0 for the last only.", group="output", low=0)
    checkpoint_every: int = setting(
        1, "Epochs between checkpoints; the last epoch always has one.", group="output", low=1
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.warmup_epochs and self.warmup_epochs >= self.epochs:
            raise UsageError(
                f"{self.warmup_epochs} warm-up epochs leave nothing of {self.epochs}; give fewer --warmup-epochs "
                "(0 for none), or more --epochs"
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
