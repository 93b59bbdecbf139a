"""The processes of one run: rank, world size and reductions. Without a process group: one process."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from cskd_pipeline.errors import CskdError

T = TypeVar("T")


def rank() -> int:
    """This process's number, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def launched_as_first() -> bool:
    """Whether this is the process whose result is printed, also after the process group has been left."""
    return int(os.environ.get("RANK", "0")) == 0


def sum_over_ranks(values: Tensor) -> Tensor:
    """`values` summed over all ranks, in place."""
    if world_size() > 1:
        dist.all_reduce(values)
    return values


class _Summed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return sum_over_ranks(values.clone())

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return sum_over_ranks(gradient.clone())


def mean_over_ranks(values: Tensor) -> Tensor:
    """The mean of all ranks' values; its gradient reaches those of every rank."""
    if world_size() == 1:
        return values
    summed: Tensor = _Summed.apply(values)
    return summed / world_size()


def any_rank(flag: bool, *, device: torch.device) -> bool:
    """Whether the flag is set on at least one rank: the same answer everywhere."""
    if world_size() == 1:
        return flag
    return bool(sum_over_ranks(torch.tensor(int(flag), device=device)).item())


def gather_from_ranks(value: T) -> list[T]:
    """Every rank's value, by rank; any that pickle can carry."""
    if world_size() == 1:
        return [value]
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value)
    return values


def copy_buffers_from_first(module: nn.Module) -> None:
    """Give every rank the first rank's buffers (batch statistics), which gradients do not keep equal."""
    if world_size() > 1:
        for buffer in module.buffers():
            dist.broadcast(buffer, src=0)


def on_all_ranks(act: Callable[[], T]) -> list[T]:
    """What `act()` gives on every rank, by rank.

    The error of one is raised on all, so that none waits for one that has gone: those meant for the user as they are,
    any other as a RuntimeError (it may not survive the journey) everywhere but where it happened.
    """
    if world_size() == 1:
        return [act()]
    outcome: tuple[Any, Exception | None]
    raised = None
    try:
        outcome = act(), None
    except Exception as error:
        raised = error
        known = isinstance(error, CskdError)
        outcome = None, error if known else RuntimeError(f"on rank {rank()}: {type(error).__name__}: {error}")
    outcomes: list[tuple[Any, Exception | None]] = gather_from_ranks(outcome)
    for _, sent in [(None, raised), *outcomes]:
        if sent is not None:
            raise sent
    return [result for result, _ in outcomes]


def on_first_rank(act: Callable[[], T]) -> T:
    """`act()` run on the first rank alone; its result on every rank, and its error as of `on_all_ranks`."""
    results: list[Any] = on_all_ranks(lambda: act() if rank() == 0 else None)
    first: T = results[0]
    return first
