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
    return f"{_place()}-{os.getpid()}-{_start(os.getpid()) or 0}-{secrets.token_hex(4)}"


def has_ended(name: str) -> bool:
    """Whether the process of this name has certainly ended; False where it ran in another place, or may be running."""
    match = _FORM.fullmatch(name)
    if match is None or match[1] != _place():
        return False
    pid, start = int(match[2]), int(match[3])
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):
        return False
    now = _start(pid)
    return now is not None and start != 0 and now != start  # the number is another process's by now


def _place() -> str:
    parts = [socket.gethostname()]
    with contextlib.suppress(OSError):  # not Linux: the host's name must do
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text())
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    return hashlib.blake2b("\0".join(parts).encode(), digest_size=6).hexdigest()


def _start(pid: int) -> int | None:
    """When a process started, in ticks since the boot; None where that is not told, or it is a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return int(fields[19])
