"""Help is complete, fits its page, and costs no heavy import."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
from cskd_pipeline_cli.main import main

HEAVY = ("torch", "torchvision", "timm", "pandas", "matplotlib")


@pytest.mark.parametrize("name", ["", *main.commands])
def test_help_fits_the_page(name: str, command: Any) -> None:
    for columns in ("80", "200"):
        outcome = command(*([name] if name else []), "--help", env={"COLUMNS": columns})
        assert outcome.code == 0
        widest = max(outcome.out.splitlines(), key=len)
        assert len(widest) <= min(int(columns), 110), widest


def test_the_list_of_commands_is_in_order_of_work_and_not_cut_off(command: Any) -> None:
    text = command("--help", env={"COLUMNS": "80"}).out
    listed = text[text.index("Commands:") :].splitlines()[1:]
    assert [line.split()[0] for line in listed] == list(main.commands)
    assert "..." not in "".join(listed)


@pytest.mark.parametrize("name", main.commands)
def test_every_option_says_what_it_does(name: str) -> None:
    for parameter in main.commands[name].params:
        if isinstance(parameter, click.Option):
            assert parameter.help, parameter.name
            assert parameter.help.rstrip("]").endswith((".", parameter.help.rpartition("[default: ")[2].rstrip("]")))


def test_help_inspect_and_status_import_nothing_heavy(finished_store: Path) -> None:
    lines = [["--help"], *([name, "--help"] for name in main.commands)]
    lines += [["inspect", str(finished_store)], ["status", str(finished_store)], ["status", "/nowhere"]]
    script = (
        "import sys\n"
        "from cskd_pipeline_cli.main import main\n"
        f"for words in {lines!r}:\n"
        "    try:\n"
        "        main(words, prog_name='cskd-pipeline')\n"
        "    except SystemExit:\n"
        "        pass\n"
        f"    loaded = [name for name in {HEAVY!r} if name in sys.modules]\n"
        "    assert not loaded, (words, loaded)\n"
    )
    finished = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    assert "complete" in finished.stdout
