"""What another device changes: finished crops, encoded rows, and a student from the store against a live teacher.

    python experiments/device_parity.py --device cuda

Prints one line a comparison with the CPU (or, for the students, of stored against live labels on the device), with the
largest difference found. On the CPU every difference is 0; run it where there is a GPU to state its differences.
"""

from __future__ import annotations

import argparse
import dataclasses
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from cskd_pipeline.crops.recipe import RECIPES
from cskd_pipeline.data import open_split
from cskd_pipeline.labels import HardEncoding, SoftEncoding
from cskd_pipeline.loading import CropLoader, block_batches
from cskd_pipeline.models.teacher.load import load_teacher


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--data", default="shapes")
    parser.add_argument("--size", type=int, default=64)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        weights = train_teacher(Path(folder), arguments)
        compare_with_cpu(weights, arguments)
        compare_stored_with_live(Path(folder), weights, arguments)


def command(*words: object) -> None:
    subprocess.run(["cskd-pipeline", *map(str, words)], check=True, stdout=subprocess.DEVNULL)


def train_teacher(folder: Path, arguments: argparse.Namespace) -> Path:
    crops = ["--recipe", "plain", "--size", arguments.size, "--device", arguments.device]
    schedule = ["--epochs", 2, "--warmup-epochs", 0, "--batch-size", 64, "--lr", 2e-3, "--drop-path", 0]
    stride = ["--student-arg", "output_stride=16"]
    command(
        "train", "--data", arguments.data, "--student", "resnet10t", *stride, *crops, *schedule, "--out", folder / "t"
    )
    return folder / "t" / "last.safetensors"


def compare_with_cpu(weights: Path, arguments: argparse.Namespace) -> None:
    index = open_split(arguments.data, "train")
    recipe = dataclasses.replace(RECIPES["deit"], size=arguments.size)
    rows = range(min(recipe.group, len(index)))
    devices = [torch.device("cpu"), torch.device(arguments.device)]
    teachers = [
        load_teacher(
            "resnet10t",
            classes=len(index.classes),
            size=arguments.size,
            device=device,
            weights=weights,
            args={"output_stride": 16},
        )
        for device in devices
    ]
    spec, positions = teachers[0].spec, teachers[0].positions
    encoding = HardEncoding(positions=positions, classes=len(index.classes))
    soft = SoftEncoding(positions=positions, classes=len(index.classes))
    finished = logits = 0.0
    same_rows = same_soft = agreeing = crops = 0
    for batch in CropLoader(index, recipe, workers=0).load(
        block_batches(recipe, 0, rows, total=len(index), batch=spec.chunk)
    ):
        pixels = [batch.pixels(recipe, mean=spec.mean, std=spec.std, device=device) for device in devices]
        finished = max(finished, float((pixels[0] - pixels[1].cpu()).abs().max()))
        labels = [teacher(x) for teacher, x in zip(teachers, pixels, strict=True)]
        logits = max(logits, float((labels[0][0] - labels[1][0].cpu()).abs().max()))
        # The same logits encoded on both devices must give the same bytes; logits of both devices need not.
        moved = [encoding.encode(*(x.to(device) for x in labels[0])) for device in devices]
        same_rows += int(moved[0].equal(moved[1]).sum())
        moved_soft = [soft.encode(*(x.to(device) for x in labels[0])) for device in devices]
        same_soft += int(moved_soft[0].equal(moved_soft[1]).sum())
        top = [encoding.tabulate(encoding.encode(*x), ratio_steps=32768)[:, 1:] for x in labels]
        agreeing += int(np.sum(top[0] == top[1]))
        crops += len(batch)
    augmented = 0
    wanted = block_batches(recipe, 0, rows, total=len(index), batch=spec.chunk)
    for batch in CropLoader(index, recipe, workers=0, augment=False).load(wanted):
        first, second = (batch.on(device, recipe).checksums() for device in devices)
        augmented += int((first == second).sum())
    print(f"crops augmented on {arguments.device}: {augmented} of {crops} equal those of the cpu")
    print(f"finished pixels, {arguments.device} against cpu: largest difference {finished:g}")
    print(f"records of the same logits: {same_rows} hard and {same_soft} soft ones of {crops} equal")
    print(f"teacher logits: largest difference {logits:g}; winners at r = 1/2: {agreeing} of {crops * positions} equal")


def compare_stored_with_live(folder: Path, weights: Path, arguments: argparse.Namespace) -> None:
    taught = ["--teacher", "resnet10t", "--teacher-weights", weights, "--teacher-arg", "output_stride=16"]
    common = ["--data", arguments.data, "--device", arguments.device]
    student = ["--student", "deit_ti"]
    for pair in (f"img_size={arguments.size}", "patch_size=8", "embed_dim=48", "depth=2", "num_heads=3"):
        student += ["--student-arg", pair]
    schedule = ["--epochs", 1, "--warmup-epochs", 0, "--batch-size", 100, "--drop-path", 0, "--eval-split", "none"]
    command("precompute", *common, *taught, "--size", arguments.size, "--seeds", "0:1", "--out", folder / "l.zarr")
    runs = {
        "stored": ["--labels", folder / "l.zarr"],
        "live": [*taught, "--size", arguments.size, "--seeds", "0:1"],
        "stored again": ["--labels", folder / "l.zarr"],
    }
    for name, source in runs.items():
        command("train", *common, *source, *student, *schedule, "--out", folder / name.replace(" ", "-"))
    states = {name: load_file(folder / name.replace(" ", "-") / "last.safetensors") for name in runs}
    for other in ("live", "stored again"):
        pairs = [(states["stored"][key], states[other][key]) for key in states["stored"]]
        largest = max(float((a - b).abs().max()) for a, b in pairs)
        equal = sum(torch.equal(a, b) for a, b in pairs)
        print(
            f"students, stored against {other}: {equal} of {len(pairs)} tensors equal, largest difference {largest:g}"
        )


if __name__ == "__main__":
    main()
