"""One rank of a batch that `dist` is computed over: saves the gradient of a linear student, as the ranks average it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn

from cskd_pipeline.batch import MixedLabels, StudentOutput, Targets
from cskd_pipeline.objectives import create_objective
from cskd_pipeline.runtime.device import process_group

BATCH, CLASSES = 8, 5


def gradient(rank: int, world: int) -> torch.Tensor:
    """That of the mean loss over this rank's part of the batch."""
    drawn = torch.Generator().manual_seed(5)
    student = nn.Linear(3, CLASSES)
    with torch.no_grad():
        student.weight.copy_(torch.randn(CLASSES, 3, generator=drawn))
        student.bias.zero_()
    inputs_B3, teacher_BC = (torch.randn(BATCH, n, generator=drawn) for n in (3, CLASSES))
    part = slice(rank * BATCH // world, (rank + 1) * BATCH // world)
    y_B = torch.arange(BATCH)[part] % CLASSES
    labels = MixedLabels(y_B, y_B, torch.ones(len(y_B)))
    output = StudentOutput(student(inputs_B3[part]))
    loss_B = create_objective("dist")(output, labels, Targets(0, logits_global_BC=teacher_BC[part]))
    loss_B.mean().backward()  # type: ignore[no-untyped-call]
    assert student.weight.grad is not None
    return student.weight.grad


def main(words: list[str]) -> None:
    with process_group("cpu"):
        rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        averaged = gradient(rank, world)
        dist.all_reduce(averaged)
        torch.save(averaged / world, Path(words[0]) / f"{rank}.pt")


if __name__ == "__main__":
    main(sys.argv[1:])
