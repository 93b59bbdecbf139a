"""Tables lie where there is room, in a folder that is the user's alone."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from cskd_pipeline.errors import RetryError
from cskd_pipeline.replay import scratch
from cskd_pipeline.replay.scratch import scratch_folder


def nothing(folder: Path) -> int:
    return 0


@pytest.fixture
def disks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Free bytes of stand-ins for shared memory ("shm") and the folder for temporary files ("tmp")."""
    free = {"shm": 1000, "tmp": 1000, "mine": 1000}
    for name in free:
        (tmp_path / name).mkdir()
    monkeypatch.setattr(scratch, "SHARED_MEMORY", tmp_path / "shm")
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path / "tmp"))
    monkeypatch.setattr(
        shutil, "disk_usage", lambda path: SimpleNamespace(free=free[Path(path).relative_to(tmp_path).parts[0]])
    )
    return free


def test_shared_memory_is_taken_while_half_of_it_stays_free(disks: dict[str, int], tmp_path: Path) -> None:
    own = f"cskd-{os.getuid()}"
    assert scratch_folder(None, needed=500, present=nothing) == tmp_path / "shm" / own
    assert scratch_folder(None, needed=501, present=nothing) == tmp_path / "tmp" / own
    assert scratch_folder(None, needed=501, present=lambda folder: 2) == tmp_path / "shm" / own
    assert scratch_folder(None, needed=502, present=lambda folder: 2) == tmp_path / "tmp" / own
    assert scratch_folder(tmp_path / "mine", needed=1000, present=nothing) == tmp_path / "mine" / own
    scratch.SHARED_MEMORY.rename(tmp_path / "gone")  # a system without it
    assert scratch_folder(None, needed=1, present=nothing) == tmp_path / "tmp" / own


def test_want_of_room_is_said_with_sizes_and_ways_out(disks: dict[str, int], tmp_path: Path) -> None:
    with pytest.raises(RetryError) as raised:
        scratch_folder(None, needed=2_560_000, present=nothing)
    assert str(raised.value) == (
        f"the decoded labels in use need 2.56 MB, and {tmp_path}/shm has 1 kB free, 50% of it may be taken; "
        f"{tmp_path}/tmp has 1 kB free, 90% of it may be taken; give a folder on a local disk with --scratch, "
        "or do without tables with --label-memory low"
    )
    with pytest.raises(RetryError, match="/mine has 1 kB free; give"):
        scratch_folder(tmp_path / "mine", needed=1001, present=nothing)


def test_the_folder_is_private(disks: dict[str, int], tmp_path: Path) -> None:
    folder = scratch_folder(tmp_path / "mine", needed=1, present=nothing)
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o755)
    scratch_folder(tmp_path / "mine", needed=1, present=nothing)
    assert folder.stat().st_mode & 0o777 == 0o700


def test_a_folder_of_another_user_or_a_link_is_not_trusted(
    disks: dict[str, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = f"cskd-{os.getuid()}"
    (tmp_path / "shm" / own).symlink_to(tmp_path)
    assert scratch_folder(None, needed=1, present=nothing) == tmp_path / "tmp" / own
    (tmp_path / "mine" / "cskd-4242").mkdir()
    monkeypatch.setattr(os, "getuid", lambda: 4242)
    with pytest.raises(RetryError, match=r"mine cannot be used \(.*cskd-4242 is not a folder of this user's"):
        scratch_folder(tmp_path / "mine", needed=1, present=nothing)
