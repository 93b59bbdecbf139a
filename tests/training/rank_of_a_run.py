"""One process of a synthetic run; torchrun or a test starts several."""

from __future__ import annotations

import argparse
import dataclasses
import os
from pathlib import Path

from synthetic_training import CONFIG, Countdown, SyntheticSource, run

from cskd_pipeline.errors import StoppedError
from cskd_pipeline.runtime.device import process_group
from cskd_pipeline.runtime.ranks import rank


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--no-drop-path", action="store_true")
    parser.add_argument("--private", action="store_true", help="a run folder for each rank, as without shared storage")
    parser.add_argument("--kill", type=int, default=1 << 30)
    parser.add_argument("--stop", type=int, default=1 << 30)
    options = parser.parse_args(words)
    config = dataclasses.replace(CONFIG, drop_path=0.0) if options.no_drop_path else CONFIG
    countdown = Countdown(options.kill)

    def maybe_die() -> None:
        if countdown():
            os._exit(9)

    with process_group("cpu"):
        # Only the second rank is asked to stop: all must agree.
        stop = Countdown(options.stop if rank() == 1 else 1 << 30)
        source = SyntheticSource(config, only=maybe_die)
        try:
            folder = options.folder / str(rank()) if options.private else options.folder
            run(folder, config, source=source, stop=stop, resume=options.resume)
        except StoppedError as stopped:
            raise SystemExit(stopped.exit_code) from stopped


if __name__ == "__main__":
    main()
