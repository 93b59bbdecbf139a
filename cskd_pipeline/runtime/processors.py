"""How many worker processes to use on this machine."""

from __future__ import annotations

import os
from pathlib import Path

CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")
MAX_WORKERS = 16


def worker_count(asked: int | None = None) -> int:
    """`asked`, or by default the usable processors shared among this node's ranks, less one, from 1 to 16."""
    if asked is not None:
        return asked
    return max(1, min(MAX_WORKERS, _processors() // int(os.environ.get("LOCAL_WORLD_SIZE", "1")) - 1))


def _processors() -> int:
    """Processors that this process may use; in a container its quota counts, not the host."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = CPU_QUOTA.read_text().split()
        return max(1, min(count, int(quota) // int(period)))
    except (OSError, ValueError):  # no cgroup, or "max": no quota
        return count
