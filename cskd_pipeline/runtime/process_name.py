"""Names for processes, unique over machines and reboots, by which others can tell that one has ended."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import socket
from pathlib import Path

_FORM = re.compile(r"([0-9a-f]{12})-(\d+)-(\d+)-[0-9a-f]{8}")
"""Place (machine, boot and process namespace), process number, its start, chance."""


def process_name() -> str:
    """A new name for this process, of letters, digits and dashes; every call gives another."""
    return f"{this_process()}-{secrets.token_hex(4)}"


def this_process() -> str:
    """What all names of this process begin with, and those of no other."""
    return f"{place()}-{os.getpid()}-{_stat(os.getpid())[1]}"


def process_of(name: str) -> str:
    """What all names of the process that has this one begin with."""
    return name.rpartition("-")[0]


def has_ended(name: str) -> bool:
    """Whether the process of this name has certainly ended; False where it ran in another place, or may be running."""
    match = _FORM.fullmatch(name)
    if match is None or match[1] != place():
        return False
    pid, start = int(match[2]), int(match[3])
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):
        return False
    state, now = _stat(pid)
    # A zombie only waits for its parent; and the number may be another process's by now.
    return state in ("Z", "X") or (start != 0 and now not in (0, start))


def place() -> str:
    """The same for processes that see one another's numbers: on one machine, since one boot, in one namespace."""
    parts = [socket.gethostname()]
    with contextlib.suppress(OSError):  # not Linux: the host's name must do
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text())
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    return hashlib.blake2b("\0".join(parts).encode(), digest_size=6).hexdigest()


def _stat(pid: int) -> tuple[str, int]:
    """State of a process and its start in ticks since the boot; "" and 0 where that is not told."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return "", 0
    return fields[0], int(fields[19])
