"""Where derived data is kept between runs, and putting a folder there in one step."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from cskd_pipeline.storage.durable import writing

CACHE_VARIABLE = "CSKD_CACHE"
_REMEDY = f"free some space or set {CACHE_VARIABLE} to a folder that can be written"


def cache_path(*parts: str) -> Path:
    """The folder `parts` of the cache, which need not exist: under `$CSKD_CACHE`, else `~/.cache/cskd-pipeline`."""
    base = os.environ.get(CACHE_VARIABLE)
    return (Path(base).expanduser() if base else Path.home() / ".cache" / "cskd-pipeline").joinpath(*parts)


def cache_folder(*parts: str) -> Path:
    """As `cache_path`, created."""
    folder = cache_path(*parts)
    with writing(folder, remedy=_REMEDY):
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError("no permission to write")
    return folder


def put_folder(folder: Path, fill: Callable[[Path], None], *, keep: Callable[[Path], bool]) -> None:
    """Fill a temporary folder by `fill` and rename it to `folder`: no reader finds it half full.

    What is there is replaced, unless `keep` accepts it, as when another process was quicker. Processes that have the
    old files open or mapped keep them.
    """
    with writing(folder, remedy=_REMEDY), _scratch_beside(folder) as scratch:
        fill(scratch)
        while True:
            try:
                scratch.rename(folder)
            except OSError:
                if not folder.exists():
                    raise
            else:
                return
            if keep(folder):
                return
            with _scratch_beside(folder) as aside, contextlib.suppress(FileNotFoundError):
                folder.rename(aside / "old")


@contextlib.contextmanager
def _scratch_beside(folder: Path) -> Iterator[Path]:
    """A temporary folder on the same file system, removed afterwards unless it was renamed."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = folder.parent / f".{folder.name}.{os.getpid()}-{secrets.token_hex(4)}"
    scratch.mkdir()
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
