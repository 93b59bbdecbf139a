"""Running commands in this process, and the store and the run that many of them start from."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from click.testing import CliRunner
from cskd_pipeline_cli.main import main

TEACHER_OPTIONS = ("--teacher", "test_resnet", "--teacher-arg", "output_stride=8", "--chunk", "16")
CROP_OPTIONS = ("--size", "32", "--recipe-arg", "group=16")
MACHINE = ("--workers", "0", "--device", "cpu")
STUDENT = tuple(
    word
    for argument in ("img_size=32", "patch_size=8", "embed_dim=24", "depth=2", "num_heads=2")
    for word in ("--student-arg", argument)
)


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a command left behind: exit code, stdout, stderr."""

    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The one line that starts with "Error: "; whatever else the command said is no error."""
        lines = [line for line in self.err.splitlines() if line.startswith("Error: ")]
        assert len(lines) == 1, self.err
        assert "Traceback" not in self.err
        return lines[0]


Command = Callable[..., Outcome]


@pytest.fixture
def command() -> Command:
    """Run one command line, in this process; its words may be anything that has a text."""

    def run(*words: object, env: Mapping[str, str] | None = None) -> Outcome:
        result = CliRunner().invoke(main, [str(word) for word in words], env=env)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception  # a bug: the test shows where
        return Outcome(result.exit_code, result.stdout, result.stderr)

    return run


@pytest.fixture
def precompute(toy: Path, teacher_weights: Path) -> list[object]:
    """`precompute` of the toy data with the toy teacher, but for `--out`: 4 blocks a seed, grid 4 x 4."""
    weights = ("--teacher-weights", teacher_weights)
    return ["precompute", "--data", toy, *TEACHER_OPTIONS, *weights, *CROP_OPTIONS, "--block", "32", *MACHINE]


@pytest.fixture
def train(toy: Path) -> list[object]:
    """`train` of a tiny distilled ViT on the toy data for an epoch of 6 updates, but for `--out` and targets."""
    steps = ("--epochs", "1", "--warmup-epochs", "0", "--batch-size", "16")
    return ["train", "--data", toy, "--student", "deit_ti", *STUDENT, *steps, *MACHINE]


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the store and the run are made once."""
    return tmp_path_factory.mktemp("made")


@pytest.fixture
def finished_store(made: Path, command: Command, precompute: list[object]) -> Path:
    """A store of seeds 0 and 1 that nobody changes."""
    path = made / "labels.zarr"
    if not path.exists():
        assert command(*precompute, "--seeds", "0:2", "--out", path).code == 0
    return path


@pytest.fixture
def hard_store(made: Path, command: Command, precompute: list[object]) -> Path:
    """A store of hard targets alone that nobody changes."""
    path = made / "hard.zarr"
    if not path.exists():
        assert command(*precompute, "--targets", "hard", "--out", path).code == 0
    return path


@pytest.fixture
def finished_run(made: Path, command: Command, train: list[object], finished_store: Path) -> Path:
    """A run of one epoch on that store that nobody changes."""
    path = made / "run"
    if not path.exists():
        assert command(*train, "--labels", finished_store, "--out", path).code == 0
    return path


@pytest.fixture
def store(finished_store: Path, tmp_path: Path) -> Path:
    """A copy of the store, to be changed or damaged."""
    return Path(shutil.copytree(finished_store, tmp_path / "labels.zarr"))


@pytest.fixture
def run_folder(finished_run: Path, tmp_path: Path) -> Path:
    """A copy of the run, to be changed or damaged."""
    return Path(shutil.copytree(finished_run, tmp_path / "run"))


@pytest.fixture
def snapshot() -> Callable[[Path], dict[str, bytes | None]]:
    """Every file below a folder with its content, and every folder with None."""

    def take(folder: Path) -> dict[str, bytes | None]:
        return {
            path.relative_to(folder).as_posix(): None if path.is_dir() else path.read_bytes()
            for path in sorted(folder.rglob("*"))
        }

    return take
