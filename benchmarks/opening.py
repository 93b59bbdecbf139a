"""How long a store of many seeds takes to open, and how much memory: a header, commit files, and files without content.

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
    """Medians over fresh processes: of opening, of listing the complete seeds, and of the check before training."""
    from own_formats import Hard

    from cskd_pipeline.store import StoreWriter
    from cskd_pipeline.store.commit import Commit

    store = work / f"opening-{seeds}"
    block = 32_768
    format_ = Hard((7, 7), 1000)
    header = format_.header(samples, block=block)
    StoreWriter(store, header)
    fidelity = {"hard": {"crops": 64, "agreement": 1.0}}
    for seed in range(seeds):
        folder = store / f"seed-{seed:06d}"
        for name in ("commits", "hard/c", "crop_crc/c"):
            (folder / name).mkdir(parents=True)
        for number in range(header.blocks):
            (folder / f"hard/c/{number}").mkdir()
            files = {f"hard/c/{number}/0": 2_900_000, f"crop_crc/c/{number}": 131_000}
            for name, size in files.items():
                (folder / name).touch()
                os.truncate(folder / name, size)
            rows = header.rows(number)
            facts = {name: {"crc32c": "00000000", "bytes": size} for name, size in files.items()}
            commit = Commit(header.digest(), seed, number, (rows.start, rows.stop), facts, {"numpy": "2"}, fidelity)
            (folder / f"commits/{number:06d}.json").write_bytes(commit.text())
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
    reader.require_complete(seeds)
    checked = time.perf_counter()
    found = {"open_ms": (opened - began) * 1e3, "open_mib": memory - before, "resident_mib": memory}
    print(json.dumps({**found, "seeds_ms": (listed - opened) * 1e3, "check_ms": (checked - listed) * 1e3}))


def resident() -> float:
    """MiB of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") / (1 << 20)


if __name__ == "__main__":
    main()
