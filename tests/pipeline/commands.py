"""Commands in processes of their own, which can be killed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import warm
from cskd_pipeline_cli.main import main
from warm import Started, wait_until

TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


def start(words: Sequence[str], *, launch: Sequence[str] = (), variables: Mapping[str, str] | None = None) -> Started:
    """Start a command; `launch` has an interpreter's arguments that make it start the commands."""
    if launch:
        return warm.start_interpreter(*launch, "-m", "cskd_pipeline_cli", *words)
    return warm.start(command, list(words), **(variables or {}))


def command(words: list[str]) -> None:
    main(words, prog_name="cskd-pipeline")


def run(words: Sequence[str], *, launch: Sequence[str] = (), ranks: int = 1) -> None:
    """Do it, without an error; `ranks` processes do it together without a launcher."""
    together = [start(words, launch=launch)] if ranks == 1 else warm.start_ranks(command, list(words), ranks=ranks)
    assert [started.finish() for started in together] == [0] * ranks, together[0].err.read_text()[-3000:]


def kill_when(started: Started, ready: Callable[[], bool]) -> None:
    """Kill a command, and everything it started, as soon as `ready`."""
    wait_until(started, ready)
    started.kill()


def precompute(toy: Path, weights: Path, store: Path, *options: str) -> list[str]:
    teacher = ["--teacher", "test_resnet", "--teacher-weights", str(weights), "--teacher-arg", "output_stride=8"]
    recipe = ["--size", "32", "--recipe-arg", "group=16", "--block", "16", "--chunk", "16"]
    data = ["--data", str(toy), "--workers", "1", "--device", "cpu"]
    return [
        "precompute",
        *data,
        *teacher,
        *recipe,
        "--seeds",
        "0:12",
        "--no-teacher-check",
        "--out",
        str(store),
        *options,
    ]


def commits(store: Path) -> int:
    """How many blocks are committed."""
    return len(list(store.glob("seed-*/commits/*.json")))


def content(path: Path) -> dict[str, bytes]:
    return {str(p.relative_to(path)): p.read_bytes() for p in path.rglob("*") if p.is_file()}
