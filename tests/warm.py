"""Processes that start at once, forked from a server that has imported what they need."""

from __future__ import annotations

import atexit
import dataclasses
import functools
import itertools
import multiprocessing
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

SERVER = multiprocessing.get_context("forkserver")
IMPORTS = [
    "warm",
    "cskd_pipeline_cli.main",
    "cskd_pipeline.labelling.job",
    "cskd_pipeline.labels.hard_kernels",
    "cskd_pipeline.training.run",
    "cskd_pipeline.loading.making",
    "cskd_pipeline.crops.op_kernels",
    "cskd_pipeline.crops.finish_kernels",
    "cskd_pipeline.models.teacher.load",
]
DEADLINE_S = 300


@dataclasses.dataclass(frozen=True, slots=True)
class Started:
    """A process at work, the first of a process group of its own.

    Attributes:
        pid: its number.
        poll: its exit code, None while it runs; minus the number of the signal that killed it.
        wait: as long as so many seconds for its end.
        out: the file of its stdout.
        err: the file of its stderr.
    """

    pid: int
    poll: Callable[[], int | None]
    wait: Callable[[float], object]
    out: Path
    err: Path

    def signal(self, number: signal.Signals) -> None:
        """Send it to the process and to everything that it started."""
        for group in {os.getpgid(pid) for pid in self._with_children()}:
            os.killpg(group, number)

    def kill(self) -> None:
        """Kill it and everything that it started, and wait for their end."""
        ends = [os.pidfd_open(pid) for pid in self._with_children()]
        self.signal(signal.SIGKILL)
        for end in ends:
            select.select([end], [], [], DEADLINE_S)
            os.close(end)
        self.finish()

    def _with_children(self) -> list[int]:
        """torchrun's workers are in groups of their own."""
        children = [file.read_text().split() for file in Path(f"/proc/{self.pid}/task").glob("*/children")]
        return [self.pid, *(int(pid) for pid in itertools.chain(*children))]

    def finish(self, *, timeout_s: float = DEADLINE_S) -> int:
        """Its exit code, once it has ended."""
        self.wait(timeout_s)
        code = self.poll()
        if code is None:
            self.signal(signal.SIGKILL)
        assert code is not None, "it does not end"
        return code


def start(work: Callable[..., object], *arguments: Any, **variables: str) -> Started:
    """Do `work(*arguments)`, with these environment variables beside those that are here."""
    out, err = _outputs()
    multiprocessing.set_forkserver_preload(IMPORTS)
    process = SERVER.Process(target=_begin, args=(out, err, _environment(variables), work, arguments))
    process.start()
    assert process.pid is not None
    return Started(process.pid, lambda: process.exitcode, process.join, out, err)


def start_interpreter(*arguments: str, **variables: str) -> Started:
    """A fresh Python with this command line."""
    out, err = _outputs()
    with out.open("wb") as stdout, err.open("wb") as stderr:
        command, environment = [sys.executable, *arguments], _environment(variables)
        started = subprocess.Popen(command, env=environment, start_new_session=True, stdout=stdout, stderr=stderr)
    return Started(started.pid, started.poll, started.wait, out, err)


def start_ranks(work: Callable[..., object], *arguments: Any, ranks: int) -> Sequence[Started]:
    """Do it in so many processes that know of one another, as torchrun starts them."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(ranks), "LOCAL_WORLD_SIZE": str(ranks)}
    return [start(work, *arguments, **common, RANK=str(rank), LOCAL_RANK=str(rank)) for rank in range(ranks)]


def wait_until(started: Started, ready: Callable[[], bool]) -> None:
    """Wait for something that it does on its way."""
    deadline = time.monotonic() + DEADLINE_S
    while not ready():
        assert started.poll() is None, f"it ended too soon: {started.err.read_text()[-3000:]}"
        assert time.monotonic() < deadline, "it never came so far"
        time.sleep(0.01)


@functools.cache
def _folder() -> str:
    """Removed when this process ends."""
    folder = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _outputs() -> tuple[Path, Path]:
    folder = Path(tempfile.mkdtemp(dir=_folder()))
    return folder / "out", folder / "err"


def _environment(variables: Mapping[str, str]) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", **variables}


def _begin(
    out: Path, err: Path, environment: dict[str, str], work: Callable[..., object], arguments: tuple[Any, ...]
) -> None:
    os.setsid()
    for number, path in ((1, out), (2, err)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), number)
    os.environ.clear()
    os.environ.update(environment)
    multiprocessing.set_start_method(None, force=True)  # the platform's, not the server's
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    torch.set_num_threads(1)
    try:
        work(*arguments)
    finally:
        atexit._run_exitfuncs()  # a fork of the server would end without
