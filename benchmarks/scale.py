"""What sharing a store costs at the size of ImageNet: many ranks plan, claim and commit every block of every seed.

The teacher is made up: a block takes no time, so that what is measured is planning and claiming alone. All ranks live
in this process and take turns in random order; each looks at the store and at nothing else. Blocks are committed
without shards, which `status` and opening do not read.
"""

from __future__ import annotations

import argparse
import random
import resource
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from own_formats import Hard
from report import add_output_options, command_line, machine, publish
from start_up import own_memory

Row = dict[str, Any]
BLOCK = 32_768
BLOCK_S = 20.0
"""How long a block is said to take: the clock of all ranks moves on by as much for each that one of them does."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=1_281_167)
    parser.add_argument("--seeds", type=int, nargs="+", default=[30, 300])
    parser.add_argument("--ranks", type=int, default=64)
    add_output_options(parser)
    wanted = parser.parse_args()
    rows = []
    for seeds in wanted.seeds:
        with tempfile.TemporaryDirectory() as folder:
            rows.append(simulate(Path(folder) / "labels.zarr", wanted.samples, seeds, wanted.ranks))
    options = ["samples", "ranks"]
    command = f"{command_line('scale', wanted, options)} --seeds {' '.join(map(str, wanted.seeds))}"
    publish(rows, table(rows), wanted, mark="scale", command=command, on=machine())


def simulate(path: Path, samples: int, seeds: int, ranks: int) -> Row:
    """All blocks of these seeds, committed by these ranks."""
    import os

    from cskd_pipeline.labelling.units import ClaimedUnits
    from cskd_pipeline.storage import FolderStorage
    from cskd_pipeline.store import Claims, StoreReader, StoreWriter
    from cskd_pipeline.store.claims import BEAT_S
    from cskd_pipeline.store.commit import Commit
    from cskd_pipeline.store.progress import progress_of

    header = Hard((7, 7), 1000).header(samples, block=BLOCK)
    calls: Counter[str] = Counter()

    class Counted(FolderStorage):
        """Counts what would be a request each in an object store (a listing: one for each 1,000 names)."""

    for name in ("read", "size", "write", "create", "delete", "files", "folders"):
        setattr(Counted, name, _counted(getattr(FolderStorage, name), name, calls))

    chance = random.Random(0)
    storage = Counted(path)
    opened_s: list[float] = []
    status_s: list[float] = []
    memory: list[int] = []
    before = own_memory(os.getpid())

    def look() -> None:
        began = time.perf_counter()
        reader = StoreReader(path)
        reader.complete_seeds()
        opened_s.append(time.perf_counter() - began)
        progress = progress_of(reader)
        status_s.append(time.perf_counter() - began - opened_s[-1])
        memory.append(own_memory(os.getpid()) - before)
        assert sum(seed.done for seed in progress.seeds) == done

    done, planned_s, clock = 0, 0.0, 0.0
    beaten = 0.0
    queues, at_work = {}, {}
    for rank in range(ranks):
        began = time.perf_counter()
        claims = Claims(storage, seeds=f"0:{seeds}", now=lambda: clock)
        claims._beat()
        queue = ClaimedUnits(
            StoreWriter(storage, header), claims, list(range(seeds)), rank=rank, world=ranks, sleep=lambda _: None
        )
        if rank == 0:
            queue.left()
            planned_s = time.perf_counter() - began
        queues[rank], at_work[rank] = queue, queue.available()
    look()
    calls.clear()
    began = time.perf_counter()
    spent = 0.0
    total = seeds * header.blocks
    while at_work:
        rank = chance.choice([*at_work])
        clock += BLOCK_S / ranks
        if clock >= beaten + BEAT_S:
            beaten = clock
            for queue in queues.values():
                queue._claims._beat()
        turn = time.perf_counter()
        unit = next(at_work[rank], None)
        spent += time.perf_counter() - turn
        if unit is None:
            del at_work[rank]
            continue
        rows = header.rows(unit[1])
        commit = Commit(header.digest(), *unit, (rows.start, rows.stop), {}, {}, {})
        FolderStorage.write(storage, f"seed-{unit[0]:06d}/commits/{unit[1]:06d}.json", commit.text(), durable=False)
        turn = time.perf_counter()
        queues[rank].done(unit, len(rows))
        spent += time.perf_counter() - turn
        done += 1
        if done in (total // 2, total):
            look()
    assert done == total, f"{done} of {total} blocks, each once"
    requests = sum(calls.values()) / total
    return {
        "bench": "scale",
        "seeds": seeds,
        "blocks": total,
        "ranks": ranks,
        "plan_ms": planned_s * 1e3,
        "claim_ms": spent / total * 1e3,
        "requests": requests,
        "open_ms": max(opened_s) * 1e3,
        "status_ms": max(status_s) * 1e3,
        "memory_mib": max(memory) / (1 << 20),
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def _counted(method: Any, name: str, calls: Counter[str]) -> Any:
    def call(self: Any, *args: Any, **settings: Any) -> Any:
        calls[name] += 1
        return method(self, *args, **settings)

    return call


def table(rows: list[Row]) -> str:
    """Markdown."""
    lines = [
        "| seeds | blocks | ranks | planning, ms | a block's claim, ms | requests a block | open and list seeds, ms | "
        "status, ms | memory of all ranks, MiB |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        lines.append(
            f"| {row['seeds']} | {row['blocks']:,} | {row['ranks']} | {row['plan_ms']:.0f} | {row['claim_ms']:.1f} | "
            f"{row['requests']:.1f} | {row['open_ms']:.0f} | {row['status_ms']:.0f} | {row['memory_mib']:.0f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
