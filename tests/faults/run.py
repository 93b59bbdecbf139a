"""Kill writers and damage stores, as often as asked for, and count what that cost.

The last line says `kills K lost L wrong W flips F undetected U`; the exit code is 1 unless L, W, U and what could not
be repaired are 0.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200, help="half of them of one writer, half of one of four")
    parser.add_argument("--flips", type=int, default=500, help="flips, truncations, deletions and swaps, in turn")
    parser.add_argument("--seed", type=int, default=0, help="another number gives other moments and places")
    wanted = parser.parse_args()

    import torch
    from damages import damage_and_repair
    from kills import kill_writers, start_writer
    from scene import SEEDS, Scene, content

    torch.set_num_threads(1)
    chance = random.Random(wanted.seed)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["CSKD_CACHE"] = folder
        scene = Scene(Path(folder))
        assert scene.job.header.blocks > 1  # made here, once for all processes that are forked
        scene.warm_up()
        undisturbed = scene.folder / "undisturbed.zarr"
        began = time.monotonic()
        first = start_writer(scene, undisturbed, 0, 1)
        first.join()
        assert first.exitcode == 0
        block_s = (time.monotonic() - began) / (scene.job.header.blocks * len(SEEDS))
        reference = content(undisturbed)
        counts = []
        for writers, share in ((1, wanted.kills - wanted.kills // 2), (4, wanted.kills // 2)):
            count = kill_writers(scene, reference, kills=share, writers=writers, block_s=block_s, chance=chance)
            print(
                f"{writers} at a time: {count.kills} kills, {count.stores} stores of {len(reference)} files finished, "
                f"{count.lost} blocks lost, {count.wrong} files wrong",
                flush=True,
            )
            counts.append(count)
        damages = damage_and_repair(scene, undisturbed, times=wanted.flips, chance=chance)
    for kind, times in damages.done.items():
        print(f"{kind}: {times} times")
    for line in [*damages.undetected, *damages.unrepaired]:
        print(line)
    print(f"not repaired: {len(damages.unrepaired)}")
    kills_, lost, wrong = (sum(getattr(count, name) for count in counts) for name in ("kills", "lost", "wrong"))
    flips, undetected = sum(damages.done.values()), len(damages.undetected)
    print(f"kills {kills_} lost {lost} wrong {wrong} flips {flips} undetected {undetected}")
    return int(bool(lost or wrong or undetected or damages.unrepaired))


if __name__ == "__main__":
    sys.exit(main())
