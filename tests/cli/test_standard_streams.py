"""Standard streams that are closed, full or gone neither end the work nor get into its files."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import sys
from pathlib import Path
from cskd_pipeline_cli.standard_streams import settle_standard_streams
settle_standard_streams()
with open("data", "wb", buffering=0) as file:
    assert file.fileno() > 2
    print("a line of progress", file=sys.stderr, flush=True)
    print("a result", flush=True)
    file.write(b"data")
sys.stdin.read()
assert Path("data").read_bytes() == b"data"
"""


def shell(command: str, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    line = ["bash", "-c", f'set -o pipefail; "$0" "$@" {command}', sys.executable, *words]
    return subprocess.run(line, cwd=folder, capture_output=True, text=True, stdin=subprocess.DEVNULL)


@pytest.mark.parametrize(
    "streams", ["2>&-", ">&-", "<&-", ">&- 2>&-", "<&- >&- 2>&-", "2>/dev/full", "2> >(exec true)"]
)
def test_nothing_is_written_into_other_files_and_nothing_fails(streams: str, tmp_path: Path) -> None:
    done = shell(streams, tmp_path, "-c", PROGRAM)
    assert done.returncode == 0, done.stderr
    assert ("a result" in done.stdout) == (">&-" not in streams.replace("2>&-", ""))


@pytest.mark.parametrize("streams", [">/dev/full", "| (exec <&-; sleep 1)"])
@pytest.mark.parametrize("words", ["--version", "train --help"])
def test_a_result_that_cannot_be_written_is_an_error_in_one_line(streams: str, words: str, tmp_path: Path) -> None:
    done = shell(streams, tmp_path, "-m", "cskd_pipeline_cli", *words.split())
    assert done.returncode == 75
    assert done.stderr.startswith("Error: the result cannot be written to standard output (")
    assert done.stderr.count("\n") == 1


def test_progress_that_cannot_be_written_does_not_change_the_exit_code(tmp_path: Path) -> None:
    assert shell("2>/dev/full", tmp_path, "-m", "cskd_pipeline_cli", "inspect", "nowhere").returncode == 3
