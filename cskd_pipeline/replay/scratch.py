"""A folder for the tables of decoded labels: in shared memory if it has plenty, else on a disk; the user's alone."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path

from cskd_pipeline.errors import RetryError

SHARED_MEMORY = Path("/dev/shm")
CHOSEN, MEMORY, DISK = 1.0, 0.5, 0.9
"""The share of free space that tables may take: where the user says so, in memory (which others need), on a disk."""


def scratch_folder(chosen: Path | None, *, needed: int, present: Callable[[Path], int]) -> Path:
    """This user's folder for tables, mode 0700, on a file system with room for them.

    Args:
        chosen: where the user wants it; None for shared memory or the system's folder for temporary files.
        needed: bytes that the tables in use at a time take.
        present: bytes of these tables that a folder has already.

    Raises:
        RetryError: none has room, or none can be trusted; says why for each.
    """
    if chosen is not None:
        candidates = {chosen: CHOSEN}
    else:
        candidates = {Path(tempfile.gettempdir()): DISK}
        if SHARED_MEMORY.is_dir():
            candidates = {SHARED_MEMORY: MEMORY, **candidates}
    refused = []
    for parent, share in candidates.items():
        try:
            folder = own_folder(parent)
            free = shutil.disk_usage(folder).free
            room = int(share * (free + present(folder)))
        except OSError as error:
            refused.append(f"{parent} cannot be used ({error.strerror or error})")
            continue
        if needed <= room:
            return folder
        refused.append(f"{parent} has {_size(free)} free" + (f", {share:.0%} of it may be taken" if share < 1 else ""))
    raise RetryError(
        f"the decoded labels in use need {_size(needed)}, and {'; '.join(refused)}; give a folder on a local disk "
        "with --scratch, or do without tables with --label-memory low"
    )


def own_folder(parent: Path) -> Path:
    """The folder `cskd-UID` of this user, which nobody else can read or write.

    Raises:
        OSError: it cannot be made, or is not the user's.
    """
    folder = parent / f"cskd-{os.getuid()}"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise PermissionError(f"{folder} is not a folder of this user's; remove it")
    if stat.S_IMODE(found.st_mode) != 0o700:
        folder.chmod(0o700)
    return folder


def _size(count: int) -> str:
    for unit in ("bytes", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000  # type: ignore[assignment]
    return f"{count:.3g} GB"
