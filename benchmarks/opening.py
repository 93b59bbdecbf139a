"""How long a store of many seeds takes to open, and how much memory: a header and commit files, no data.

As a program, `python opening.py STORE` opens it in a fresh process and prints what that took.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

SEEDS, SAMPLES = 300, 1_281_167


def measure_opening(work: Path, *, seeds: int, samples: int, repetitions: int = 5) -> dict[str, float]:
    """Medians over fresh processes; `open_ms` is the time that training waits, `seeds_ms` that of listing all seeds."""
    from own_formats import Hard

    from cskd_pipeline.store import StoreWriter

    store = work / f"opening-{seeds}"
    block = 32_768
    format_ = Hard((7, 7), 1000)
    header = format_.header(samples, block=block)
    with StoreWriter(store, header):
        pass
    # Opening does not look at commit files: any text of their size will do.
    text = json.dumps({"store": header.digest(), "files": "0" * 500})
    for seed in range(seeds):
        commits = store / f"seed-{seed:06d}" / "commits"
        commits.mkdir(parents=True)
        for number in range(header.blocks):
            (commits / f"{number:06d}.json").write_text(text)
    runs = [
        json.loads(subprocess.run([sys.executable, __file__, store], check=True, capture_output=True).stdout)
        for _ in range(repetitions)
    ]
    shutil.rmtree(store)
    return {name: statistics.median(run[name] for run in runs) for name in runs[0]}


def main() -> None:
    from cskd_pipeline.store import StoreReader

    before = resident()
    began = time.perf_counter()
    reader = StoreReader(Path(sys.argv[1]))
    opened = time.perf_counter()
    memory = resident()
    seeds = reader.complete_seeds()
    listed = time.perf_counter()
    assert len(seeds) > 0
    found = {"open_ms": (opened - began) * 1e3, "open_mib": memory - before, "resident_mib": memory}
    print(json.dumps({**found, "seeds_ms": (listed - opened) * 1e3}))


def resident() -> float:
    """MiB of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") / (1 << 20)


if __name__ == "__main__":
    main()
