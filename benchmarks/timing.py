"""Times side by side: every repetition runs all actions in turn, so that a busy moment hits them alike.

What is measured is processor time, user and system, of this process. On an idle machine with files in the page cache
that is the wall time of one processor; on a busy one it still is, nearly.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping


def interleaved(actions: Mapping[str, Callable[[], object]], *, repetitions: int, warm_up: bool) -> dict[str, float]:
    """Median seconds of each action; `warm_up` runs each once before, which compiles what is compiled at first use."""
    if warm_up:
        for action in actions.values():
            action()
    seconds: dict[str, list[float]] = {name: [] for name in actions}
    gc.collect()
    gc.disable()  # as `timeit` does: what it would have to go through is not the action's doing
    try:
        for _ in range(repetitions):
            for name, action in actions.items():
                began = time.process_time()
                action()
                seconds[name].append(time.process_time() - began)
    finally:
        gc.enable()
    return {name: statistics.median(values) for name, values in seconds.items()}
