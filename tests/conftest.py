"""A toy data set and a toy teacher that the tests of whole stages share."""

from __future__ import annotations

import io
import signal
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from s3_server import s3, s3_server  # noqa: F401  (fixtures)

CLASSES = ("disc", "bar", "plain")


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Tests run beside one another on few cores."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def interruptible() -> None:
    """Processes among which tests are shared ignore Ctrl-C, and so would what tests start."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


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


@pytest.fixture(scope="session")
def session_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def toy(session_cache: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a data set of 110 train and 24 test images in 3 classes, whose index is kept between tests."""
    monkeypatch.setenv("CSKD_CACHE", str(session_cache))
    monkeypatch.delenv("CSKD_DATA_ROOT", raising=False)
    folder = session_cache / "toy"
    if not folder.exists():
        write_toy(folder)
    return folder


@pytest.fixture
def odd_toy(toy: Path) -> Path:
    """As `toy`, but with an odd number of images: one of them has no mix partner."""
    folder = toy.parent / "odd"
    if not folder.exists():
        write_toy(folder, train=109)
    return folder


TEACHER = "test_resnet"
"""timm's smallest ResNet; stride 32, or less with output_stride."""

TEACHER_ARGS = {"output_stride": 8}


@pytest.fixture(scope="session")
def teacher_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of weights for `TEACHER`, random but lively: its winners differ from place to place."""
    import timm
    from safetensors.torch import save_file

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = timm.create_model(TEACHER, num_classes=len(CLASSES))
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 1.5)
                module.weight.data.uniform_(0.5, 1.5)
            if isinstance(module, torch.nn.Linear):
                module.weight.data.normal_(0, 0.5)
    path = tmp_path_factory.mktemp("teacher") / "teacher.safetensors"
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, path)
    return path


STUDENT_ARGS = {"patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2}
"""For `deit_ti`: small, with patches that pool to the grid of `toy_store`."""


@pytest.fixture
def toy_store(toy: Path, teacher_weights: Path) -> Path:
    """Hard and soft targets of seeds 0 and 1 of `toy`, crops of 32 pixels, grid 4 x 4; nobody changes it."""
    import cskd_pipeline as cskd

    path = toy.parent / "labels.zarr"
    if not path.exists():
        cskd.precompute(
            data=toy,
            teacher=TEACHER,
            teacher_args=TEACHER_ARGS,
            teacher_weights=teacher_weights,
            chunk=16,
            size=32,
            recipe_args={"group": 16},
            block=32,
            seeds="0:2",
            workers=0,
            device="cpu",
            out=path,
        )
    return path
