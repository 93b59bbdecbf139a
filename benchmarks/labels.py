"""Bytes, fidelity and speed of label formats, side by side in one run on one processor.

    python benchmarks/labels.py
    python benchmarks/labels.py --data-root DATA --work WORK --sets all --records 1e4,1e5,1e6 --opening \\
        --json labels.jsonl --write docs/benchmarks.md

`docs/benchmarks.md` says what the numbers mean and holds a run's tables.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import os
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import fidelity
import numpy as np
import opening
import report
import torch
from label_format import LabelFormat, Rows
from label_sets import REAL, SYNTHETIC, LabelSet, open_set
from own_formats import Full, Hard, Soft
from peers.pickle_per_image import PicklePerImage
from peers.tinyvit import TinyVit
from peers.topk_rows import TopkRows
from timing import interleaved
from torch import Tensor

FORMATS: tuple[type[LabelFormat], ...] = (Hard, Soft, Full, TopkRows, TinyVit, PicklePerImage)
DEFAULT_SET = "synthetic-1000-mid"
GATHERED = 512
ENCODED = 256
MOST_TABLE_BYTES = 4 << 30
MOST_FILES = 100_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--sets",
        default=DEFAULT_SET,
        help=f"names of sets, or all; there are {', '.join([*SYNTHETIC, *REAL])} (%(default)s)",
    )
    parser.add_argument("--data-root", type=Path, help="folder with tiny_imagenet/ and imagenet_sample/")
    parser.add_argument("--work", type=Path, help="keeps logits and trained networks (a temporary folder by default)")
    parser.add_argument("--crops", type=int, default=4096, help="distinct crops of a set (%(default)s)")
    parser.add_argument(
        "--records", default="1e4", help="stored crops; sizes after the first for the default set only (%(default)s)"
    )
    parser.add_argument("--compared", type=int, default=512, help="crops that fidelity is measured on (%(default)s)")
    parser.add_argument("--repetitions", type=int, default=5, help="of every timing; medians are kept (%(default)s)")
    parser.add_argument("--opening", action="store_true", help="also open a store of 300 seeds x 1.28 M samples")
    parser.add_argument("--json", type=Path, help="write a JSON object a row")
    parser.add_argument("--write", type=Path, help="put the tables between the marks of this page")
    arguments = parser.parse_args()
    every = [*SYNTHETIC, *(REAL if arguments.data_root else ())]
    names = every if arguments.sets == "all" else arguments.sets.split(",")
    if unknown := [name for name in names if name not in every]:
        parser.error(f"no set {', '.join(unknown)}; there are {', '.join(every)}, the real ones with --data-root")
    sizes = [int(float(size)) for size in arguments.records.split(",")]
    rows: list[report.Row] = []
    opened: list[report.Row] = []
    with one_processor(), working_folder(arguments.work) as work:
        for name in names:
            print(f"{name}: logits", file=sys.stderr, flush=True)
            label_set = open_set(name, work=work, data_root=arguments.data_root, crops=arguments.crops)
            rows += compare(
                label_set,
                sizes=sizes if name == DEFAULT_SET else sizes[:1],
                compared=arguments.compared,
                repetitions=arguments.repetitions,
                scratch=work / "stores",
            )
        if arguments.opening:
            for seeds in (1, opening.SEEDS):
                took = opening.measure_opening(work, seeds=seeds, samples=opening.SAMPLES)
                opened.append({"bench": "store-opening", "seeds": seeds, "samples": opening.SAMPLES, **took})
    text = report.tables(rows, opened, command=shown(sys.argv[1:]))
    print(text)
    if arguments.json:
        arguments.json.write_text("".join(json.dumps(row) + "\n" for row in (*rows, *opened)))
    if arguments.write:
        arguments.write.write_text(report.replace_measured(arguments.write.read_text(), text))


def compare(
    label_set: LabelSet, *, sizes: Sequence[int], compared: int, repetitions: int, scratch: Path
) -> list[report.Row]:
    """A row for each size and format that is not too large for it.

    Encoding and fidelity are measured at the first size; there the first crops are the set's own, in order.
    """
    formats = {format_.name: format_(label_set.grid, label_set.classes) for format_ in FORMATS}
    encode_s = encoding_times(label_set, formats, repetitions=repetitions)
    records = {
        name: format_.join([format_.encode(*batch) for batch in label_set.batches()])
        for name, format_ in formats.items()
    }
    rows: list[report.Row] = []
    for size in sizes:
        first = size == sizes[0]
        order = repeated(len(label_set.logits), size)
        chosen = {name: format_ for name, format_ in formats.items() if fits(format_, size)}
        scratch.mkdir(exist_ok=True)
        for name, format_ in chosen.items():
            print(f"{label_set.name}: {size:,} records of {name}", file=sys.stderr, flush=True)
            shutil.rmtree(scratch / name, ignore_errors=True)
            format_.write(scratch / name, records[name], order)
        tables: dict[str, Any] = {}
        actions = {name: functools.partial(load, format_, scratch / name, tables) for name, format_ in chosen.items()}
        decode_s = interleaved(actions, repetitions=repetitions if first else min(3, repetitions), warm_up=first)
        gather_s = gathering_times(chosen, tables, size, repetitions=repetitions)
        for name, format_ in chosen.items():
            found = fidelity.Fidelity(None, None, None)
            if first:
                count = min(compared, size, len(label_set.logits))
                found = fidelity.measure(format_, scratch / name, tables[name], *label_set.batch(0, count))
            fields = {field: total / size for field, total in bytes_by_field(format_, scratch / name).items()}
            rows.append(
                {
                    "bench": "labels",
                    "set": label_set.name,
                    "encoding": name,
                    "records": size,
                    "bytes_per_crop": round(sum(fields.values()), 3),
                    "agreement": found.agreement,
                    "kl": found.kl,
                    "encode_crops_s": encode_s[name] if first else None,
                    "decode_crops_s": size / decode_s[name],
                    "gather_crops_s": gather_s[name],
                    "scope": format_.scope,
                    "kl_global": found.kl_global,
                    "fields": {field: round(share, 3) for field, share in fields.items()},
                }
            )
        shutil.rmtree(scratch)
    return rows


def load(format_: LabelFormat, folder: Path, tables: dict[str, Any]) -> None:
    """Puts the store's table into `tables`."""
    tables.pop(format_.name, None)  # before, so that memory holds a table but once
    tables[format_.name] = format_.load(folder)


def encode(format_: LabelFormat, dense_BPC: Tensor, global_BC: Tensor) -> None:
    """From logits to what is compressed or written."""
    format_.pack(format_.encode(dense_BPC, global_BC))


def encoding_times(label_set: LabelSet, formats: dict[str, LabelFormat], *, repetitions: int) -> dict[str, float]:
    """Crops per second from logits in memory to what is compressed or written."""
    dense, global_ = label_set.batch(0, ENCODED)
    actions = {name: functools.partial(encode, format_, dense, global_) for name, format_ in formats.items()}
    seconds = interleaved(actions, repetitions=repetitions, warm_up=True)
    return {name: len(dense) / value for name, value in seconds.items()}


def gathering_times(
    formats: dict[str, LabelFormat], tables: dict[str, Any], size: int, *, repetitions: int
) -> dict[str, float]:
    """Crops per second from tables to the targets of batches of `GATHERED` random crops."""
    random = np.random.Generator(np.random.Philox(0))
    batches = [random.integers(0, size, GATHERED) for _ in range(8)]
    actions = {name: functools.partial(gather, format_, tables[name], batches) for name, format_ in formats.items()}
    seconds = interleaved(actions, repetitions=repetitions, warm_up=True)
    return {name: len(batches) * GATHERED / value for name, value in seconds.items()}


def gather(format_: LabelFormat, table: Any, batches: Sequence[Rows]) -> None:
    """Targets of every batch."""
    for rows in batches:
        format_.gather(table, rows)


def fits(format_: LabelFormat, size: int) -> bool:
    """Whether a store of this size is measured: full logits, or a file for every crop, soon get out of hand."""
    return format_.raw_bytes * size <= MOST_TABLE_BYTES and not (format_.one_file_per_crop and size > MOST_FILES)


def repeated(crops: int, size: int) -> Rows:
    """int64 [size]: all crops in order, then all of them again and again, every time in another random order.

    No chunk of a store, whose rows are compressed together, sees a crop twice where `crops` is a multiple of them.
    """
    random = np.random.Generator(np.random.Philox(0))
    passes = [np.arange(crops), *(random.permutation(crops) for _ in range(size // crops))]
    return np.concatenate(passes)[:size]


def bytes_by_field(format_: LabelFormat, folder: Path) -> dict[str, int]:
    """Sizes of all files of a store, by what they hold."""
    totals: dict[str, int] = {}
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            field = format_.field(file.relative_to(folder))
            totals[field] = totals.get(field, 0) + file.stat().st_size
    return totals


@contextlib.contextmanager
def one_processor() -> Iterator[None]:
    """Bind this process and its children to one processor, where the system can."""
    torch.set_num_threads(1)
    before = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    if before:
        os.sched_setaffinity(0, {max(before)})
    try:
        yield
    finally:
        if before:
            os.sched_setaffinity(0, before)


@contextlib.contextmanager
def working_folder(path: Path | None) -> Iterator[Path]:
    """`path`, kept, or a temporary folder."""
    if path is not None:
        path.mkdir(parents=True, exist_ok=True)
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def shown(words: Sequence[str]) -> str:
    """The command with names instead of this machine's paths."""
    names = {"--data-root": "DATA", "--work": "WORK", "--json": "FILE", "--write": "docs/benchmarks.md"}
    words = [names.get(before, word) for before, word in zip(["", *words], words, strict=False)]
    return shlex.join(["python", "benchmarks/labels.py", *words])


if __name__ == "__main__":
    main()
