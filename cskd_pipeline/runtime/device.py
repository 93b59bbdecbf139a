"""The device of this process, and the process group that a launcher prepared."""

from __future__ import annotations

import atexit
import contextlib
import gc
import os
from collections.abc import Iterator

import torch
import torch.distributed as dist
from torch import nn

from cskd_pipeline.errors import StoppedError, UsageError


@contextlib.contextmanager
def process_group(device: str | None = None) -> Iterator[torch.device]:
    """The device of this process, with its process group joined when torchrun (or srun with its variables) started it.

    Names and errors of devices are those of `choose_device`.
    """
    chosen = choose_device(device)
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or dist.is_initialized():
        yield chosen
        return
    dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    try:
        yield chosen
    except StoppedError:  # all ranks have agreed on it
        _leave_group()
        raise
    # Not after any other error: the others may wait in a collective for this process, and leaving the group would
    # wait for them, so that nobody got to read the error.
    _leave_group()


def _leave_group() -> None:
    """Leave the process group, and have what holds it freed before the interpreter is.

    A DistributedDataParallel is in cycles of references and keeps the group's threads. One that lets go of the last
    collective's tensors while the interpreter ends wants it, and aborts the process ("terminate called without an
    active exception"). Freeing the group waits for them.
    """
    dist.destroy_process_group()
    atexit.register(gc.collect)


def choose_device(name: str | None) -> torch.device:
    """The device "cpu", "cuda" or "cuda:N", if it exists here (else UsageError); None takes a GPU where there is one.

    Under torchrun or srun "cuda" is the local rank's.
    """
    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
    except RuntimeError as error:
        raise UsageError(f"unknown device {name!r}; give cpu, cuda or cuda:N") from error
    if device.type not in ("cpu", "cuda"):
        raise UsageError(f"device {name!r} is not supported; give cpu, cuda or cuda:N")
    if device.type != "cuda":
        return device
    if ":" not in str(device):
        device = torch.device("cuda", _local_gpu())
    if device.index >= torch.cuda.device_count():
        raise UsageError(f"device {device} does not exist: {torch.cuda.device_count()} GPUs found; give --device cpu")
    torch.cuda.set_device(device)
    return device


def device_of(module: nn.Module) -> torch.device:
    """The device of a module's parameters."""
    return next((value.device for value in module.parameters()), torch.device("cpu"))


def _local_gpu() -> int:
    """The GPU of this process among those of its machine that it sees; srun may show each task its own alone."""
    if "LOCAL_RANK" in os.environ:
        return int(os.environ["LOCAL_RANK"])
    return int(os.environ.get("SLURM_LOCALID", "0")) % max(1, torch.cuda.device_count())
