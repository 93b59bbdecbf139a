"""A tiny run on made-up tensors, for the tests beside it and for the processes that one of them starts."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cskd_pipeline.batch import MixedLabels, Targets, TrainBatch
from cskd_pipeline.models.student import create_student
from cskd_pipeline.objectives import create_objective
from cskd_pipeline.runtime.ranks import rank, world_size
from cskd_pipeline.training.config import TrainConfig
from cskd_pipeline.training.loop import train
from cskd_pipeline.training.summary import TrainSummary

torch.set_num_threads(1)  # the tensors are too small for more

CLASSES = 5
TINY: dict[str, Any] = {"embed_dim": 32, "depth": 2, "num_heads": 2, "img_size": 16, "patch_size": 4}
CONFIG = TrainConfig(epochs=3, batch_size=8, lr=5e-3, warmup_epochs=1, ema_decay=0.9, drop_path=0.2, accumulation=2)
TENSORS = ("model", "ema", "optimizer")


def crops_of_epoch(epoch: int, count: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Pixels, labels, hard global and hard dense targets of a whole epoch, a function of its number."""
    generator = torch.Generator().manual_seed(1000 + epoch)
    labels_B = torch.randint(CLASSES, (count,), generator=generator)
    pixels_B3SS = torch.randn(count, 3, 16, 16, generator=generator) + labels_B[:, None, None, None]
    dense_BHW = torch.randint(CLASSES, (count, 2, 2), generator=generator)
    return pixels_B3SS, labels_B, labels_B, dense_BHW


class SyntheticSource:
    """An `EpochSource` whose global batches are the same for any number of ranks and any accumulation."""

    def __init__(
        self, config: TrainConfig, *, updates: int = 3, spare: int = 0, only: Callable[[], None] | None = None
    ):
        self._size = config.micro_batch(world_size())
        self._updates = updates
        self._accumulation = config.accumulation
        self.batches_per_epoch = updates * config.accumulation + spare
        self.closed = 0
        self.asked: list[tuple[int, int]] = []
        self._before_batch = only or (lambda: None)

    def batches(self, epoch: int, *, start: int = 0) -> Iterator[TrainBatch]:
        self.asked.append((epoch, start))
        ranks = world_size()
        crops = crops_of_epoch(epoch, self.batches_per_epoch * self._size * ranks)
        try:
            for position in range(start, self.batches_per_epoch):
                self._before_batch()
                first = (position * ranks + rank()) * self._size
                pixels, labels, hard, dense = (part[first : first + self._size] for part in crops)
                mixed = MixedLabels(labels, labels, torch.ones(len(labels)), smoothing=0.1)
                yield TrainBatch(pixels, mixed, Targets(0, hard_global_B=hard, hard_dense_BHW=dense))
        finally:
            self.closed += 1


def evaluation_batches() -> Iterator[tuple[Tensor, Tensor]]:
    """Eleven images in slices that differ between ranks."""
    pixels, labels, _, _ = crops_of_epoch(-1, 11)
    mine = list(range(rank(), 11, world_size()))
    for chunk in (mine[:4], mine[4:]):
        if chunk:
            yield pixels[chunk], labels[chunk]


def run(folder: Path, config: TrainConfig = CONFIG, **changes: Any) -> TrainSummary:
    """`train` on the synthetic source, with any argument replaced."""
    objective = changes.pop("objective", create_objective("cskd"))
    grid = (2, 2) if objective.dense else None
    student = changes.pop("student", None) or create_student(
        "deit_ti", classes=CLASSES, grid=grid, args=TINY, drop_path=config.drop_path, seed=config.seed
    )
    arguments: dict[str, Any] = {
        "student": student,
        "objective": objective,
        "source": changes.pop("source", None) or SyntheticSource(config),
        "run_folder": folder,
        "device": torch.device("cpu"),
        "evaluation": [*evaluation_batches()],
        **changes,
    }
    return train(config, **arguments)


def state_of(folder: Path) -> dict[str, Any]:
    """What must be equal bit for bit between an interrupted run and another: everything but the clock."""
    state: dict[str, Any] = torch.load(folder / "last.pt", weights_only=True)
    for name in ("seconds", "waited_s"):
        state["progress"].pop(name)
    return state


def same(first: Any, second: Any) -> bool:
    """Whether two nested states are equal bit for bit."""
    if isinstance(first, Tensor):
        return isinstance(second, Tensor) and first.dtype == second.dtype and torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[key], second[key]) for key in first)
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(map(same, first, second))
    return bool(first == second)


class Killed(BaseException):
    """Stands for a process that ends without warning."""


class Countdown:
    """Callable that lets `count` calls pass and acts on the next."""

    def __init__(self, count: int) -> None:
        self.left = count

    def __call__(self) -> bool:
        self.left -= 1
        return self.left < 0

    def kill(self) -> None:
        if self():
            raise Killed


def killed_run(folder: Path, config: TrainConfig = CONFIG, *, batches: int) -> None:
    """A run that dies when it asks for one micro-batch more than `batches`."""
    with contextlib.suppress(Killed):
        run(folder, config, source=SyntheticSource(config, only=Countdown(batches).kill))
