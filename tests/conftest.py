"""A toy data set and a toy teacher that the tests of whole stages share."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import torch
from hub_server import hub  # noqa: F401  (a fixture)
from s3_server import s3, s3_server  # noqa: F401  (fixtures)
from toys import CLASSES, TEACHER, TEACHER_ARGS, write_toy


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Tests run beside one another on few cores."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def interruptible() -> None:
    """Processes among which tests are shared ignore Ctrl-C, and so would what tests start."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


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
