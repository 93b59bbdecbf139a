"""Tables lie where there is room."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from cskd_pipeline.errors import RetryError
from cskd_pipeline.replay import scratch
from cskd_pipeline.replay.scratch import scratch_folder


@pytest.fixture
def disks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand-ins with 1,000 free bytes each: shared memory ("shm"), the folder for temporary files, others."""
    for name in ("shm", "tmp"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(scratch, "SHARED_MEMORY", tmp_path / "shm")
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path / "tmp"))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    return tmp_path


def test_shared_memory_is_taken_while_half_of_it_stays_free(disks: Path) -> None:
    assert scratch_folder(None, needed=500) == disks / "shm"
    assert scratch_folder(None, needed=501) == disks / "tmp"
    assert scratch_folder(disks / "new" / "mine", needed=1000) == disks / "new" / "mine"
    assert (disks / "new" / "mine").is_dir()
    (disks / "shm").rmdir()  # a system without it
    assert scratch_folder(None, needed=1) == disks / "tmp"


def test_want_of_room_is_said_with_sizes_and_the_way_out(disks: Path) -> None:
    with pytest.raises(RetryError) as raised:
        scratch_folder(None, needed=2_560_000)
    assert str(raised.value) == (
        f"the decoded labels in use need 2.6 MB, and {disks}/shm has 1.0 kB free, 50% of it may be taken; "
        f"{disks}/tmp has 1.0 kB free, 90% of it may be taken; give a folder on a local disk with --scratch"
    )
    with pytest.raises(RetryError, match=r"/mine has 1\.0 kB free; give"):
        scratch_folder(disks / "mine", needed=1001)


def test_what_is_no_folder_is_said(disks: Path) -> None:
    (disks / "file").touch()
    with pytest.raises(RetryError, match=r"file cannot be used \(File exists\); give"):
        scratch_folder(disks / "file", needed=1)
