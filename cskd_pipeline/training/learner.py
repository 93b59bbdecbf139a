"""Everything that changes in an update: student, optimizer, loss scale and moving average."""

from __future__ import annotations

import contextlib
import hashlib
import math
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, Protocol

import torch
from timm.optim import create_optimizer_v2, list_optimizers  # type: ignore[attr-defined]
from timm.scheduler import create_scheduler_v2  # type: ignore[attr-defined]
from timm.utils import ModelEmaV3  # type: ignore[attr-defined]
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from cskd_pipeline.batch import TrainBatch
from cskd_pipeline.errors import DataError, UsageError, first_line
from cskd_pipeline.models.student import Student
from cskd_pipeline.objectives import Objective
from cskd_pipeline.record import require_choice
from cskd_pipeline.runtime.ranks import rank, sum_over_ranks, world_size
from cskd_pipeline.training.config import TrainConfig

PRECISIONS: Mapping[str, torch.dtype | None] = MappingProxyType(
    {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
)
"""dtype of the forward pass under autocast; weights, losses and optimizer are fp32 in all of them."""


class NonFiniteError(DataError):
    """The loss or the weights are no longer finite; nothing was saved since they were."""


class _Scheduler(Protocol):
    """timm's schedulers, as far as they are used: a function of the update count without a state of its own."""

    def step_update(self, num_updates: int) -> None:
        """Set the learning rates of update number `num_updates`."""


class Learner:
    """A student that learns, one update at a time.

    `load_state_dict(state_dict())` restores it to the bit; it holds no other state.
    """

    def __init__(
        self,
        student: Student,
        objective: Objective,
        config: TrainConfig,
        *,
        updates_per_epoch: int,
        device: torch.device,
    ) -> None:
        self.student = student.to(device)
        self._objective = objective
        self._config = config
        self._device = device
        self.autocast = PRECISIONS[config.precision]
        self._optimizer = _optimizer(self.student, config)
        self._scheduler = _scheduler(self._optimizer, config, updates_per_epoch=updates_per_epoch)
        self._scaler = torch.amp.GradScaler(device.type, enabled=config.precision == "fp16")
        self._ema = ModelEmaV3(self.student, decay=config.ema_decay) if config.ema_decay else None
        if config.compile:
            self.student.compile()
        self._forward: nn.Module = self.student
        if world_size() > 1:
            self._forward = DistributedDataParallel(
                self.student, device_ids=[device.index] if device.type == "cuda" else None
            )
            if self._ema is not None:
                self._ema.set(self.student)  # type: ignore[no-untyped-call]  # the wrapper has just given every rank the first one's weights

    @property
    def models(self) -> dict[str, Student]:
        """The students to evaluate and to save: "model", and "ema" where there is one."""
        return {"model": self.student} | ({"ema": self._ema.module} if self._ema is not None else {})

    @property
    def lr(self) -> float:
        """The learning rate of the latest update."""
        return float(self._optimizer.param_groups[0]["lr"])

    def update(self, batches: Iterator[TrainBatch], *, update: int) -> tuple[float, int]:
        """One step of the optimizer on the next `accumulation` micro-batches.

        The gradient is that of the mean loss over all crops of all ranks, whatever the sizes of the micro-batches.

        Returns the summed loss and the number of crops over all ranks. `update` is the update's number, from 0.

        Raises:
            NonFiniteError: the loss is not finite; weights and optimizer are as before.
            StopIteration: `batches` ended.
        """
        self._scheduler.step_update(update)
        self._optimizer.zero_grad()
        totals = torch.zeros(2, dtype=torch.float64, device=self._device)
        for micro in range(self._config.accumulation):
            batch = next(batches)
            _seed_micro_step(self._config.seed, update=update, micro=micro, rank=rank())
            totals += self._accumulate(batch, last=micro == self._config.accumulation - 1)
        loss_sum, count = sum_over_ranks(totals).tolist()
        if not math.isfinite(loss_sum):
            raise NonFiniteError(f"the loss is {loss_sum / count} (learning rate {self.lr:.3g})")
        self._step(crops=int(count))
        return loss_sum, int(count)

    def _accumulate(self, batch: TrainBatch, *, last: bool) -> Tensor:
        """Add the gradients of one micro-batch; summed loss and number of crops, fp64 [2]."""
        postponed = isinstance(self._forward, DistributedDataParallel) and not last
        # Ranks exchange gradients in the last backward pass only. Both passes must be inside: the wrapper decides
        # in the forward pass what the backward pass will do.
        with self._forward.no_sync() if postponed else contextlib.nullcontext():  # type: ignore[operator]
            with torch.autocast(self._device.type, dtype=self.autocast, enabled=self.autocast is not None):
                output = self._forward(batch.pixels_B3SS)
            own = () if self.student.adapter is None else (self.student.adapter,)
            loss_B = self._objective(output, batch.labels, batch.targets, *own)
            # DistributedDataParallel averages over ranks, so each divides by its own share of the batch.
            share = self._config.batch_size / world_size()
            self._scaler.scale(loss_B.sum() / share).backward()  # type: ignore[no-untyped-call]
        totals = torch.empty(2, dtype=torch.float64, device=self._device)
        totals[0] = loss_B.detach().sum(dtype=torch.float64)
        totals[1] = len(loss_B)
        return totals

    def _step(self, *, crops: int) -> None:
        if crops != self._config.batch_size:
            gradients = [value.grad for value in self.student.parameters() if value.grad is not None]
            torch._foreach_mul_(gradients, self._config.batch_size / crops)
        if self._config.clip_grad is not None:
            self._scaler.unscale_(self._optimizer)
            nn.utils.clip_grad_norm_(self.student.parameters(), self._config.clip_grad)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        if self._ema is not None:
            self._ema.update(self.student)

    def require_finite(self) -> None:
        """Raise NonFiniteError unless all weights are finite: a finite loss may have an infinite gradient."""
        for name, value in self.student.named_parameters():
            if not bool(value.isfinite().all()):
                raise NonFiniteError(f"the weights {name} are no longer finite (learning rate {self.lr:.3g})")

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values."""
        return {
            **{name: model.state_dict() for name, model in self.models.items()},
            "optimizer": self._optimizer.state_dict(),
            "scaler": self._scaler.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state of a learner with the same settings."""
        for name, model in self.models.items():
            model.load_state_dict(state[name])
        self._optimizer.load_state_dict(state["optimizer"])
        self._scaler.load_state_dict(state["scaler"])


def _optimizer(student: Student, config: TrainConfig) -> torch.optim.Optimizer:
    """timm's optimizer of that name; biases, norms and what the model exempts (embeddings, tokens) are not decayed.

    Raises UsageError if timm has no such optimizer, cannot build it here, or it needs second derivatives.
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


def _scheduler(optimizer: torch.optim.Optimizer, config: TrainConfig, *, updates_per_epoch: int) -> _Scheduler:
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
    stepping: _Scheduler = scheduler
    return stepping


def _seed_micro_step(seed: int, *, update: int, micro: int, rank: int) -> None:
    """Seed torch on all devices from these four numbers alone.

    A run that is resumed at any update draws what the uninterrupted run drew, and no generator state is stored.
    """
    named = f"{seed}/{update}/{micro}/{rank}".encode()
    torch.manual_seed(int.from_bytes(hashlib.blake2b(named, digest_size=8).digest(), "little") >> 1)
