"""Where derived data is kept between runs, and putting a folder there in one step."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from cskd_pipeline.errors import RetryError

CACHE_VARIABLE = "CSKD_CACHE"


def cache_path(*parts: str) -> Path:
    """The folder `parts` of the cache, which need not be there: under `$CSKD_CACHE`, else `~/.cache/cskd-pipeline`."""
    base = os.environ.get(CACHE_VARIABLE)
    return (Path(base).expanduser() if base else Path.home() / ".cache" / "cskd-pipeline").joinpath(*parts)


def cache_folder(*parts: str) -> Path:
    """As `cache_path`, created.

    Raises:
        RetryError: it cannot be created or written to.
    """
    folder = cache_path(*parts)
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError("no permission to write")
    return folder


@contextlib.contextmanager
def storage_errors(folder: Path) -> Iterator[None]:
    """Turns an `OSError` of the block into a `RetryError` that names `folder` and the way out."""
    try:
        yield
    except OSError as error:
        raise RetryError(
            f"cannot write to {folder} ({error.strerror or error}); "
            f"free some space or set {CACHE_VARIABLE} to a folder that can be written"
        ) from error


@contextlib.contextmanager
def scratch_beside(folder: Path) -> Iterator[Path]:
    """A fresh folder beside `folder`, on the same file system, removed afterwards unless it was renamed."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = folder.parent / f".{folder.name}.{os.getpid()}-{secrets.token_hex(4)}"
    scratch.mkdir()
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def take_place(scratch: Path, folder: Path) -> bool:
    """Renames `scratch` to `folder`; False where a `folder` that is not empty stands there already."""
    try:
        scratch.rename(folder)
    except OSError:
        if folder.exists():
            return False
        raise
    return True


def move_away(folder: Path) -> None:
    """Removes `folder`: renamed before it is deleted, so that nobody opens a half of it.

    Who has its files open or mapped keeps them.
    """
    with scratch_beside(folder) as scratch, contextlib.suppress(FileNotFoundError):
        folder.rename(scratch / "old")
