"""Writers killed without warning at random moments, and their work finished by others."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import random
import shutil
import signal
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

from scene import SEEDS, Scene, content

from cskd_pipeline.storage import open_storage
from cskd_pipeline.store import StoreReader, check_files, check_tree
from cskd_pipeline.store.opening import is_store

LIFE_BLOCKS = 4
"""The longest life of a writer that is to be killed, its start included: the time that so many blocks take."""


@dataclasses.dataclass
class Kills:
    """What came out.

    Attributes:
        kills: processes killed while they were at work.
        lost: blocks that were committed before a kill and not, or not whole, after it.
        wrong: files of finished stores that are not those of an undisturbed run.
        stores: how many stores were finished in the end.
    """

    kills: int = 0
    lost: int = 0
    wrong: int = 0
    stores: int = 0


def kill_writers(
    scene: Scene, reference: dict[str, bytes], *, kills: int, writers: int, block_s: float, chance: random.Random
) -> Kills:
    """Kill `kills` of the processes that fill stores, `writers` at a time, and compare every store when it is full."""
    found = Kills()
    store = scene.folder / f"killed-{writers}.zarr"
    while found.kills < kills:
        shutil.rmtree(store, ignore_errors=True)
        running = [start_writer(scene, store, rank, writers) for rank in range(writers)]
        while any(process.is_alive() for process in running) and found.kills < kills:
            time.sleep(chance.uniform(0, LIFE_BLOCKS * block_s))
            number = chance.randrange(writers)
            before = committed(store)
            if running[number].is_alive():
                os.kill(running[number].pid or 0, signal.SIGKILL)
                running[number].join()
                found.kills += running[number].exitcode == -signal.SIGKILL
                found.lost += len(before - committed(store))
                running[number] = start_writer(scene, store, number, writers)
        for process in running:
            process.join()
            assert process.exitcode == 0, f"a writer ended with {process.exitcode}"
        last = start_writer(scene, store, 0, 1)  # whoever comes next finishes what is left
        last.join()
        assert last.exitcode == 0
        reader = StoreReader(store)
        bad = [file for _, _, files in check_files(reader) for file in files] + [*check_tree(reader)]
        files = content(store)
        found.lost += len(bad)
        found.wrong += sum(files.get(name) != reference.get(name) for name in {*files, *reference})
        found.stores += 1
    return found


def committed(store: Path) -> set[tuple[int, int]]:
    """The blocks that a reader finds."""
    if not is_store(open_storage(store)):
        return set()
    reader = StoreReader(store)
    return {(seed, block) for seed in SEEDS for block in reader.committed(seed)}


def start_writer(scene: Scene, store: Path, rank: int, world: int) -> BaseProcess:
    process = multiprocessing.get_context("fork").Process(target=scene.fill, args=(store, rank, world))
    process.start()
    return process
