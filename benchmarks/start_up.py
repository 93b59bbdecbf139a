r"""What the number of samples costs before the first batch, and in the memory of a worker.

    python benchmarks/start_up.py --entries 10000,1281167 --json start.jsonl --write docs/benchmarks.md

Indices of any length are made whose entries share a few generated images, and each is measured in a process of its own:
opening it (which reads all of it, for its checksums), the order of an epoch, starting two workers and their first
batch, and what a worker's memory holds that no other process shares after it made some batches of crops from anywhere.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import json
import multiprocessing
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import report

IMAGES = 64
BATCH = 64
BATCHES = 24
Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entries", default="10000,1281167", help="how many samples (%(default)s)")
    report.add_output_options(parser)
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(arguments.measure)))
        return
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for entries in map(int, arguments.entries.split(",")):
            index = make_index(Path(folder), entries)
            words = ["--measure", str(index)]
            subprocess.run([sys.executable, __file__, *words], check=True, stdout=subprocess.DEVNULL)  # warm-up
            done = subprocess.run([sys.executable, __file__, *words], check=True, stdout=subprocess.PIPE, text=True)
            rows.append({"bench": "start_up", "entries": entries, **json.loads(done.stdout)})
    command = report.command_line("start_up", arguments, ("entries",))
    report.publish(rows, table(rows), arguments, mark="start-up", command=command, on=report.machine(used="two"))


def make_index(folder: Path, entries: int) -> Path:
    """An index of so many samples, which share `IMAGES` JPEGs of 160 x 120 pixels in one file."""
    import numpy as np
    from PIL import Image

    from cskd_pipeline.data.sample_index import write_index

    encoded = []
    generator = np.random.default_rng(0)
    for _ in range(IMAGES):
        stream = io.BytesIO()
        coarse = Image.fromarray(generator.integers(0, 256, (8, 10, 3), dtype=np.uint8))
        coarse.resize((160, 120)).save(stream, "JPEG", quality=90)
        encoded.append(stream.getvalue())
    (folder / "images").write_bytes(b"".join(encoded))
    lengths = np.array([len(data) for data in encoded])
    which = np.arange(entries) % IMAGES
    columns = {
        "keys": np.array([f"n{label:08d}/image_{label:08d}.JPEG".encode() for label in range(entries)]),
        "labels": which,
        "file_ids": np.zeros(entries, np.int64),
        "offsets": (np.cumsum(lengths) - lengths)[which],
        "lengths": lengths[which],
        "heights": np.full(entries, 120, np.int32),
        "widths": np.full(entries, 160, np.int32),
        "files": np.array([b"images"]),
    }
    header = {"name": "made", "split": "train", "samples": entries, "digest": "0" * 32, "source": "tar"}
    header |= {"root": str(folder), "path": "images", "fingerprint": ""}
    header["classes"] = [str(label) for label in range(IMAGES)]
    index = folder / f"index-{entries}"
    write_index(index, columns, header)
    return index


def measure(folder: Path) -> Row:
    """Seconds until the first batch, by what they are spent on, and a worker's memory."""
    import torch

    from cskd_pipeline.crops.recipe import RECIPES
    from cskd_pipeline.data import SampleIndex
    from cskd_pipeline.loading import CropLoader, EpochOrder

    torch.set_num_threads(1)
    began = time.perf_counter()
    index = SampleIndex.open(folder)
    opened = time.perf_counter()
    recipe = dataclasses.replace(RECIPES["deit"], size=112)
    order = EpochOrder(recipe, (0,), len(index), batch=BATCH)
    crops = order.crops(0)
    ordered = time.perf_counter()
    loader = CropLoader(index, recipe, workers=2)
    batches = loader.load(crops.part(start, start + BATCH) for start in range(0, BATCHES * BATCH, BATCH))
    next(batches)
    first = time.perf_counter()
    for _ in range(BATCHES - 2):
        next(batches)
    private = [own_memory(child.pid or 0) for child in multiprocessing.active_children()]
    assert len(private) == 2
    loader.close()
    return {
        "open_ms": (opened - began) * 1e3,
        "order_ms": (ordered - opened) * 1e3,
        "first_batch_ms": (first - ordered) * 1e3,
        "worker_mib": max(private) / (1 << 20),
    }


def own_memory(process: int) -> int:
    """Bytes that no other process shares."""
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Private_"))


def table(rows: list[Row]) -> str:
    """Markdown."""
    lines = [
        "| samples | index, ms | order of an epoch, ms | workers and first batch, ms | a worker's own memory, MiB |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        lines.append(
            f"| {row['entries']:,} | {row['open_ms']:.0f} | {row['order_ms']:.0f} | {row['first_batch_ms']:.0f} | "
            f"{row['worker_mib']:.1f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
