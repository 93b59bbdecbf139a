"""The process that decodes seeds into table files, seen from the one that started it."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from cskd_pipeline import errors
from cskd_pipeline.errors import CskdError, RetryError
from cskd_pipeline.replay import decode_program
from cskd_pipeline.replay.decode_program import SeedTable
from cskd_pipeline.replay.table_file import TableFile

PROGRAM = Path(decode_program.__file__)


class Decoder:
    """A process at work on tables whose locks the caller holds; they pass to all users as the tables get ready.

    It is a fresh interpreter, not a fork: of the caller's threads, device and memory it has nothing. Start it from the
    main thread only, for a fork of loader workers at the same moment would keep its pipes open.
    """

    def __init__(self, store: str, tables: dict[SeedTable, TableFile]) -> None:
        """Start on these tables of the store at `store`, in this order."""
        job = {
            "store": store,
            "tables": [
                {
                    "table": dataclasses.asdict(table),
                    "partial": str(file.partial),
                    "path": str(file.path),
                    "lock": file.descriptor,
                }
                for table, file in tables.items()
            ],
        }
        self._seeds = ", ".join(str(seed) for seed in sorted({table.seed for table in tables}))
        # -P: the program's own folder is no place to import from.
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(PROGRAM)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=[file.descriptor for file in tables.values()],
            process_group=0,  # Ctrl-C and a scheduler's signals to the group are this process's to decide on
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it ended at once: `wait` tells how
            self._process.stdin.write(json.dumps(job).encode() + b"\n")
            self._process.stdin.flush()  # left open: its end tells the process that this one is gone

    @property
    def pid(self) -> int:
        """Its process number."""
        return self._process.pid

    def wait(self, timeout_s: float) -> bool:
        """Whether it has done its work, after at most `timeout_s` of waiting.

        Raises:
            CskdError: what went wrong there, as the error it was.
            RetryError: it was killed.
        """
        try:
            code = self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return False
        said = self._process.stdout.read() if self._process.stdout else b""
        self.stop()
        if code < 0:
            likely = ", most likely for want of memory" if -code == signal.SIGKILL else ""
            raise RetryError(
                f"the process that decodes the labels of seed {self._seeds} was killed by signal {-code}{likely}; "
                "try again, or do without decoded tables with --label-memory low"
            )
        if code:
            raise RuntimeError(
                f"the process that decodes the labels of seed {self._seeds} failed; its traceback is above"
            )
        outcome = json.loads(said.splitlines()[-1])
        if outcome:
            kind: type[CskdError] = getattr(errors, outcome["error"])
            raise kind(outcome["message"])
        return True

    def stop(self) -> None:
        """End it, if it is still at work."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
