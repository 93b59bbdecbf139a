"""A power cut after every single step of writing a block: what was committed stays, writing again mends the rest.

Run as a program: it forks, and a process in which zarr has threads must not.
"""

from __future__ import annotations

import functools
import os
import pathlib
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import zarr  # noqa: F401  (here, not in every child)

from cskd_pipeline.labels import HardEncoding, encodings_to_json
from cskd_pipeline.labels.hard.records import HardRecords
from cskd_pipeline.store import StoreHeader, StoreReader, StoreWriter, check_files, check_tree

STEPS = ((os, "open"), (os, "fsync"), (os, "link"), (os, "write"), (pathlib.Path, "replace"), (pathlib.Path, "mkdir"))
HARD = HardEncoding(positions=6, classes=11, row_bytes=24)
HEADER = StoreHeader(
    recipe={"name": "plain"},
    data={"name": "toy", "split": "train", "samples": 96, "classes": 11, "digest": "ab"},
    teacher={},
    grid=(2, 3),
    encodings=encodings_to_json({"hard": HARD}),
    block=48,
)


@functools.cache
def records(seed: int) -> HardRecords:
    generator = torch.Generator().manual_seed(seed)
    dense = torch.randn(48, 6, 11, generator=generator) * 4
    return HARD.encode(dense, dense.mean(1))


def write(store: Path, blocks: list[int], *, replace: bool = False) -> None:
    writer = StoreWriter(store, HEADER)
    for block in blocks:
        crc = np.arange(48, dtype=np.uint32) + block
        writer.write_block(0, block, {"hard": records(block)}, crc, versions={}, replace=replace)


def in_child(work: Any) -> int:
    """Exit code of a fork that does this."""
    pid = os.fork()
    if pid == 0:
        work()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def cut_off(step: int) -> None:
    """End this process, as a power cut would, right after the system call number `step`."""
    count = 0

    def counted(original: Any) -> Any:
        def call(*args: Any, **settings: Any) -> Any:
            nonlocal count
            result = original(*args, **settings)
            count += 1
            if count == step:
                os._exit(9)
            return result

        return call

    for owner, name in STEPS:
        setattr(owner, name, counted(getattr(owner, name)))


def files(store: Path) -> dict[str, bytes]:
    found = {path.relative_to(store).as_posix(): path.read_bytes() for path in store.rglob("*") if path.is_file()}
    return {name: data for name, data in found.items() if not name.startswith(".writing/")}


def main() -> None:
    folder = Path(sys.argv[1])
    torch.set_num_threads(1)
    assert len(records(0)) == len(records(1)) == 48
    assert in_child(lambda: write(folder / "whole", [0, 1])) == 0
    whole = files(folder / "whole")
    for name, first, again in (("new", [], False), ("second", [0], False), ("replaced", [0, 1], True)):
        step, block = 0, min(1, len(first))
        while True:
            step += 1
            store = folder / name
            shutil.rmtree(store, ignore_errors=True)
            if first:
                assert in_child(lambda first=first, store=store: write(store, first)) == 0

            def interrupted(store: Path = store, step: int = step, block: int = block, again: bool = again) -> None:
                cut_off(step)
                write(store, [block], replace=again)

            if in_child(interrupted) == 0:
                break
            if (store / "zarr.json").exists():
                reader = StoreReader(store)
                assert 0 in reader.committed(0) or not first, f"{name}: a committed block is lost by step {step}"
                bad = [file for _, _, found in check_files(reader) for file in found]
                assert not bad, f"{name}, step {step}: {bad}"
            assert in_child(lambda store=store: write(store, [0, 1])) == 0
            assert files(store) == whole, f"{name}, step {step}: other files"
            assert not [*check_tree(StoreReader(store))]
        print(f"{name}: {step - 1} steps")


if __name__ == "__main__":
    main()
