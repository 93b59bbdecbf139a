"""The rank of this process among those that its launcher started."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from cskd_pipeline.errors import UsageError


class Rank(NamedTuple):
    """A process's rank, from 0, and the number of processes."""

    rank: int
    world: int


def launched_rank(rank: int | None, world: int | None, environment: Mapping[str, str]) -> Rank:
    """The rank that is given, or else that of torchrun, Slurm (tasks of srun, of an array, or both) or Kubernetes.

    Raises UsageError if rank and world, or the launcher's variables in `environment`, do not fit together.
    """
    found = _given(rank, world) or _torchrun(environment) or _slurm(environment) or _kubernetes(world, environment)
    if found is None and world is not None:
        raise UsageError(f"--world-size {world} is given without --rank, and no launcher says which this process is")
    found = found or Rank(0, 1)
    if not 0 <= found.rank < found.world:
        raise UsageError(f"rank {found.rank} of {found.world} processes: ranks go from 0 to the world size less 1")
    return found


def _given(rank: int | None, world: int | None) -> Rank | None:
    if rank is None:
        return None
    if world is None:
        raise UsageError(f"--rank {rank} is given without --world-size: give both, or neither")
    return Rank(rank, world)


def _torchrun(environment: Mapping[str, str]) -> Rank | None:
    if "RANK" not in environment or "WORLD_SIZE" not in environment:
        return None
    return Rank(_number(environment, "RANK"), _number(environment, "WORLD_SIZE"))


def _slurm(environment: Mapping[str, str]) -> Rank | None:
    if "SLURM_PROCID" not in environment:
        return None
    task, tasks = _number(environment, "SLURM_PROCID"), _number(environment, "SLURM_NTASKS", 1)
    if "SLURM_ARRAY_TASK_ID" not in environment:
        return Rank(task, tasks)
    first, step = _number(environment, "SLURM_ARRAY_TASK_MIN", 0), _number(environment, "SLURM_ARRAY_TASK_STEP", 1)
    element = (_number(environment, "SLURM_ARRAY_TASK_ID") - first) // max(1, step)
    # A list such as 1,2,7 has gaps: the world is then as large as its numbers say.
    elements = max(_number(environment, "SLURM_ARRAY_TASK_COUNT", 1), element + 1)
    return Rank(element * tasks + task, elements * tasks)


def _kubernetes(world: int | None, environment: Mapping[str, str]) -> Rank | None:
    if "JOB_COMPLETION_INDEX" not in environment:
        return None
    index = _number(environment, "JOB_COMPLETION_INDEX")
    return Rank(index, index + 1 if world is None else world)


def _number(environment: Mapping[str, str], name: str, default: int | None = None) -> int:
    text = environment.get(name, "" if default is None else str(default))
    if not text.isdecimal():
        raise UsageError(f"{name} is {text!r} in the environment, where a number is due; unset it, or give --rank")
    return int(text)
