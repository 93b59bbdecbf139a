"""Where there is room for the tables of decoded labels: in shared memory if it has plenty, else on a disk."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from cskd_pipeline.errors import RetryError
from cskd_pipeline.wording import size

SHARED_MEMORY = Path("/dev/shm")
CHOSEN, MEMORY, DISK = 1.0, 0.5, 0.9
"""The share of free space that tables may take: where the user says so, in memory (which others need), on a disk."""


def scratch_folder(chosen: Path | None, *, needed: int) -> Path:
    """A folder on a file system with room for `needed` bytes of tables.

    Args:
        chosen: where the user wants it, made if missing; None for shared memory or the folder for temporary files.
        needed: bytes.

    Raises:
        RetryError: none has room, or can be used; says why for each.
    """
    if chosen is not None:
        candidates = {chosen: CHOSEN}
    else:
        candidates = {Path(tempfile.gettempdir()): DISK}
        if SHARED_MEMORY.is_dir():
            candidates = {SHARED_MEMORY: MEMORY, **candidates}
    refused = []
    for folder, share in candidates.items():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(folder).free
        except OSError as error:
            refused.append(f"{folder} cannot be used ({error.strerror or error})")
            continue
        if needed <= int(share * free):
            return folder
        refused.append(f"{folder} has {size(free)} free" + (f", {share:.0%} of it may be taken" if share < 1 else ""))
    raise RetryError(
        f"the decoded labels in use need {size(needed)}, and {'; '.join(refused)}; give a folder on a local disk "
        "with --scratch"
    )
