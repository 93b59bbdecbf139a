"""A toy data set, and the names and arguments of a toy teacher and a toy student."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("disc", "bar", "plain")

TEACHER = "test_resnet"
"""timm's smallest ResNet; stride 32, or less with output_stride."""

TEACHER_ARGS = {"output_stride": 8}

STUDENT_ARGS = {"patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2}
"""For `deit_ti`: small, with patches that pool to the grid of `toy_store`."""


def toy_image(number: int) -> bytes:
    """A JPEG of 20 to 35 pixels a side whose class is number % 3; drawn with integers only."""
    height, width = 20 + number * 7 % 16, 20 + number * 11 % 16
    rows, columns = np.mgrid[:height, :width]
    noise = (rows * 73 + columns * 151 + number * 977) % 97
    shape = (rows - height // 2) ** 2 + (columns - width // 2) ** 2 < 60, np.abs(rows - columns) < 4, rows < 0
    base = np.where(shape[number % 3], 220, 60)
    pixels = np.stack([base + noise // 4, base // 2 + noise // 2, 255 - base - noise // 3], axis=2)
    encoded = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(encoded, "JPEG", quality=90)
    return encoded.getvalue()


def write_toy(folder: Path, *, train: int = 110, test: int = 24, order: tuple[int, ...] = (0, 1, 2)) -> Path:
    """Tar shards `train-0.tar`, `train-1.tar` and `test-0.tar` with a class list; class N has number `order[N]`."""
    folder.mkdir(parents=True, exist_ok=True)
    shards = {"train-0": range(0, train, 2), "train-1": range(1, train, 2), "test-0": range(1000, 1000 + test)}
    for name, numbers in shards.items():
        with tarfile.open(folder / f"{name}.tar", "w") as archive:
            for number in numbers:
                for suffix, data in (("jpg", toy_image(number)), ("cls", str(order[number % 3]).encode())):
                    member = tarfile.TarInfo(f"img{number:05d}.{suffix}")
                    member.size = len(data)
                    archive.addfile(member, io.BytesIO(data))
    names = [CLASSES[order.index(number)] for number in range(3)]
    (folder / "classes.txt").write_text("".join(f"{name}\n" for name in names))
    return folder
