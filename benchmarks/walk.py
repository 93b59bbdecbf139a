"""How many files of the project one command passes through.

    python benchmarks/walk.py train --labels labels.zarr --student deit_s ...

runs the command and prints two numbers: files in which at least one function ran in the main process (any thread,
worker processes not counted), and files that were loaded.
"""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from types import FrameType

from cskd_pipeline_cli.main import main

ROOT = Path(__file__).parents[1]


def walk(words: list[str]) -> tuple[int, int]:
    """(files that ran, files that were loaded) of the command with these words."""
    ran: set[str] = set()

    def note(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code.co_name != "<module>":
            ran.add(frame.f_code.co_filename)

    threading.setprofile(note)
    sys.setprofile(note)
    try:
        main(words, standalone_mode=False)
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    ours = tuple(f"{ROOT / name}/" for name in ("cskd_pipeline", "cli"))
    loaded = {getattr(module, "__file__", None) or "" for module in sys.modules.values()}
    return sum(name.startswith(ours) for name in ran), sum(name.startswith(ours) for name in loaded)


if __name__ == "__main__":
    ran, loaded = walk(sys.argv[1:])
    print(f"files that ran: {ran}, files that were loaded: {loaded}", file=sys.stderr)
