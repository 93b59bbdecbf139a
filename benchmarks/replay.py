r"""Crops per second and core through the DataLoader, next to timm's transforms, side by side in one run.

    python benchmarks/replay.py --data DATA/tiny_imagenet --data 'DATA/imagenet_sample/*.tar' \
        --json replay.jsonl --write docs/benchmarks.md

Every measurement is a process of its own on one processor: a loader with one worker, batches of 64, finished pixels
(but where a GPU would finish them) and mixed labels on the CPU. What counts is the processor time of both, user and
system, after a first pass that compiles what is compiled and fills the page cache. All pipelines take turns,
`--repetitions` times; medians are kept.
"""

from __future__ import annotations

import argparse
import io
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import report

if TYPE_CHECKING:
    from cskd_pipeline.data import SampleIndex
    from cskd_pipeline.loading import EpochOrder

PIPELINES = {
    "timm": "`create_transform` with recipe `deit`'s settings, `Mixup`; Pillow",
    "ours": "this project",
    "ours-device": "`ours` but for what `--augment device` leaves to a GPU: RandAugment, erasing, mixing, normalising",
    "ours-repeats": "`ours` with `--repeats 3`: three crops of an image from one decoding",
    "ours-device-repeats": "both",
}
BATCH = 64
Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", action="append", help="data sets, as the command line takes them (shapes)")
    parser.add_argument("--size", type=int, default=224, help="side of crops (%(default)s)")
    parser.add_argument(
        "--crops",
        type=int,
        default=2000,
        help="crops of a measurement, at most, but for whole epochs of repeats (%(default)s)",
    )
    parser.add_argument("--repetitions", type=int, default=5, help="of every measurement (%(default)s)")
    report.add_output_options(parser)
    parser.add_argument("--measure", choices=PIPELINES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(arguments.measure, arguments.data[0], size=arguments.size, crops=arguments.crops)))
        return
    arguments.data = arguments.data or ["shapes"]
    rows = [row for data in arguments.data for row in compare(data, arguments)]
    report.publish(
        rows,
        table(rows),
        arguments,
        mark="replay",
        command=report.command_line("replay", arguments, ("data", "size", "crops", "repetitions")),
        on=report.machine("timm", "pillow", "simplejpeg"),
    )


def compare(data: str, arguments: argparse.Namespace) -> list[Row]:
    """One row a pipeline."""
    speeds: dict[str, list[float]] = {name: [] for name in PIPELINES}
    for turn in range(arguments.repetitions):
        for name, found in speeds.items():
            print(f"{data}: {name}, {turn + 1} of {arguments.repetitions}", file=sys.stderr)
            words = ["--measure", name, "--data", data, "--size", arguments.size, "--crops", arguments.crops]
            done = subprocess.run(
                [sys.executable, __file__, *map(str, words)], check=True, stdout=subprocess.PIPE, text=True
            )
            found.append(json.loads(done.stdout)["crops_s_core"])
    medians = {name: statistics.median(found) for name, found in speeds.items()}
    return [
        {
            "bench": "replay",
            "data": report.set_name(data),
            "pipeline": name,
            "crops_s_core": median,
            "ratio_to_timm": median / medians["timm"],
            "spread": [min(speeds[name]), max(speeds[name])],
        }
        for name, median in medians.items()
    ]


def measure(pipeline: str, data: str, *, size: int, crops: int) -> dict[str, float]:
    """Crops a second of processor time, of this process and its worker."""
    import torch

    from cskd_pipeline.data import open_split

    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    index = open_split(data, "train")
    if pipeline == "timm":
        count = min(crops, len(index)) // BATCH * BATCH
        passes = timm_batches(index, size=size, count=count)
    else:
        kinds = pipeline.split("-")
        repeats = 3 if "repeats" in kinds else 1
        order = epoch_order(index, size=size, repeats=repeats)
        # Repeated crops are decoded together early on: only a whole epoch has its share of images.
        count = order.batches * BATCH if repeats > 1 else min(crops // BATCH, order.batches) * BATCH
        passes = replayed_batches(index, order, count=count, on_device="device" in kinds)
    next(passes)
    before = processor_seconds()
    next(passes)
    return {"crops_s_core": count / (processor_seconds() - before)}


def epoch_order(index: SampleIndex, *, size: int, repeats: int) -> EpochOrder:
    import dataclasses

    from cskd_pipeline.crops.recipe import RECIPES
    from cskd_pipeline.loading import EpochOrder

    recipe = dataclasses.replace(RECIPES["deit"], size=size)
    shuffle = "blocks" if repeats > 1 else "full"
    return EpochOrder(recipe, tuple(range(repeats)), len(index), batch=BATCH, repeats=repeats, shuffle=shuffle)


def replayed_batches(index: SampleIndex, order: EpochOrder, *, count: int, on_device: bool) -> Iterator[None]:
    """Passes over the same crops, as `train` loads them, and finishes them where that is not left to a GPU."""
    import torch

    from cskd_pipeline.loading import CropLoader

    recipe, cpu = order.recipe, torch.device("cpu")
    loader = CropLoader(index, recipe, workers=1, augment=not on_device, ahead=order.ahead)
    while True:
        done = 0
        crops = order.crops(0)
        for batch in loader.load(crops.part(start, start + BATCH) for start in range(0, count, BATCH)):
            if not on_device:
                batch.pixels(recipe, mean=recipe.mean, std=recipe.std, device=cpu)
            batch.labels(recipe, device=cpu)
            done += len(batch)
        assert done == count
        yield


def timm_batches(index: SampleIndex, *, size: int, count: int) -> Iterator[None]:
    """Passes with what a timm training script does on the CPU."""
    import torch
    from PIL import Image
    from timm.data import Mixup, create_transform
    from torch.utils.data import DataLoader, Dataset

    transform = create_transform(
        size,
        is_training=True,
        auto_augment="rand-m9-mstd0.5-inc1",
        interpolation="bicubic",
        re_prob=0.25,
        re_mode="pixel",
    )

    class Crops(Dataset[Any]):
        def __len__(self) -> int:
            return count

        def __getitem__(self, sample: int) -> Any:
            data = index.read(sample)
            while True:
                try:
                    return transform(Image.open(io.BytesIO(data)).convert("RGB")), int(index.labels[sample])
                except ValueError as error:  # posterizing to 0 bits, which Pillow 13 refuses: draw again
                    if "bits" not in str(error):
                        raise

    def one_thread(worker: int) -> None:
        torch.set_num_threads(1)

    loader = DataLoader(Crops(), BATCH, num_workers=1, persistent_workers=True, worker_init_fn=one_thread)
    mix = Mixup(0.8, 1.0, label_smoothing=0.1, num_classes=len(index.classes))
    while True:
        for pixels, labels in loader:
            mix(pixels, labels)
        yield


def processor_seconds() -> float:
    """User and system time of this process and its children that live."""
    total = time.process_time()
    for child in multiprocessing.active_children():
        fields = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()
        total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return total


def table(rows: list[Row]) -> str:
    """Markdown."""
    lines = ["| data | pipeline | crops/s and core | least to most | times timm |", "|---|---|---|---|---|"]
    for row in rows:
        low, high = row["spread"]
        lines.append(
            f"| {row['data']} | {row['pipeline']} | {row['crops_s_core']:.0f} | {low:.0f} to {high:.0f} | "
            f"{row['ratio_to_timm']:.2f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
