"""Logits of small CNNs on real images, trained here by this project's own command where they are not there yet.

Crops are those of the `deit` recipe, mixed and erased, as labels are made for; the seeds follow one another.
"""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cskd_pipeline.crops.recipe import RECIPES
from cskd_pipeline.data import SampleIndex, open_split
from cskd_pipeline.loading import CropLoader
from cskd_pipeline.loading.order import sample_batches
from cskd_pipeline.models.teacher.load import load_teacher

SIZE = 56
NETWORK = "resnet10t"
NETWORK_ARGS = {"output_stride": 8, "channels": [32, 64, 128, 256]}
"""A grid of 7 x 7 at 56 pixels."""

_CHUNK = 64


@dataclasses.dataclass(frozen=True, slots=True)
class Training:
    """How the network of a set is trained.

    Attributes:
        data: what `--data` names, below the folder of all data.
        options: of `cskd-pipeline train`.
    """

    data: str
    options: tuple[str, ...]


TRAININGS = {
    "tiny_imagenet-200": Training("tiny_imagenet", ("--epochs", "30", "--batch-size", "128", "--eval-every", "10")),
    # One image a class leaves none to evaluate on.
    "imagenet_sample-500": Training(
        "imagenet_sample/sample-*.tar", ("--epochs", "100", "--batch-size", "100", "--eval-split", "none")
    ),
}


def training_command(training: Training, *, data_root: Path, out: Path) -> list[str]:
    """Arguments of `cskd-pipeline`; about 20 and 10 minutes on one core for the two sets."""
    command = ["train", "--data", str(data_root / training.data), "--workers", "0", "--recipe", "plain"]
    command += ["--student", NETWORK, "--size", str(SIZE), "--lr", "3e-3", "--precision", "bf16"]
    for name, value in NETWORK_ARGS.items():
        command += ["--student-arg", f"{name}={value}"]
    command += ["--warmup-epochs", "1", "--ema-decay", "0", "--drop-path", "0"]
    return [*command, *training.options, "--out", str(out), "--resume"]


def classes_of(index: SampleIndex) -> Tensor:
    """The classes that occur: of imagenet_sample, every second one."""
    return torch.from_numpy(np.unique(index.labels))


def trained_logits(name: str, *, data_root: Path, work: Path, crops: int) -> Iterator[tuple[np.ndarray, Tensor]]:
    """Rows (place among all crops, int64 [b]) and logits [b, 1 + P, C], the global ones first, of the first crops."""
    training = TRAININGS[name]
    weights = work / "network" / "last.safetensors"
    if not weights.exists():
        command = training_command(training, data_root=data_root, out=weights.parent)
        subprocess.run([sys.executable, "-m", "cskd_pipeline_cli", *command], check=True, stdout=sys.stderr)
    index = open_split(str(data_root / training.data), "train")
    teacher = load_teacher(
        NETWORK,
        classes=len(index.classes),
        size=SIZE,
        device=torch.device("cpu"),
        weights=weights,
        args=NETWORK_ARGS,
        chunk=_CHUNK,
    )
    used = classes_of(index)
    recipe = dataclasses.replace(RECIPES["deit"], size=SIZE)
    loader = CropLoader(index, recipe, workers=0)
    for seed in range(-(-crops // len(index))):
        wanted = min(crops - seed * len(index), len(index))
        whole_groups = min(-(-wanted // recipe.group) * recipe.group, len(index))  # partners lie in one group
        batches = sample_batches(recipe, seed, np.arange(whole_groups), total=len(index), batch=_CHUNK)
        for batch in loader.load(batches):
            pixels = batch.pixels(recipe, mean=teacher.spec.mean, std=teacher.spec.std, device=teacher.device)
            dense_BPC, global_BC = teacher(pixels)
            kept = batch.draws_B["sample"] < wanted
            rows = batch.draws_B["sample"].astype(np.int64) + seed * len(index)
            yield rows[kept], torch.cat([global_BC[:, None], dense_BPC], 1)[torch.from_numpy(kept)][..., used]
