"""What the documentation says about the code is so."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from cskd_pipeline_cli.main import main

from cskd_pipeline.errors import CskdError
from cskd_pipeline.presets import PRESETS

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *ROOT.glob("docs/**/*.md")])
CONTRACTS = {
    contract["name"]: contract
    for contract in tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
}


def commands() -> Iterator[list[str]]:
    """Every command line of the documentation, from the name of the subcommand on."""
    for page in PAGES:
        for line in page.read_text().splitlines():
            for part in re.findall(r"(?:^|`)[^`]*?(?:cskd-pipeline|-m cskd_pipeline_cli) +([a-z]+[^`#]*)", line):
                yield part.split()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+)", page.read_text())
    assert [target for target in targets if "://" not in target and not (page.parent / target).exists()] == []


def test_commands_in_the_documentation_exist_with_their_options() -> None:
    seen = set()
    for name, *words in commands():
        command = main.commands[name]
        known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        unknown = [word for word in words if word.startswith("--") and word.split("=")[0] not in known]
        assert not unknown, f"{name} has no {unknown}"
        seen.add(name)
    assert {"precompute", "train", "eval", "export", "index"} <= seen


def test_the_readme_names_every_command() -> None:
    text = (ROOT / "README.md").read_text()
    table = text[text.index("## Commands") : text.index("## Documentation")]
    assert set(re.findall(r"`([a-z][a-z-]*)`", table)) == set(main.commands)


def test_exit_codes_are_those_of_the_errors() -> None:
    text = (ROOT / "README.md").read_text()
    named = {int(code) for code in re.findall(r"(?:codes:|,)\s+(\d+)\s[a-z]", text[text.index("Exit codes") :])}
    kinds = [CskdError, *CskdError.__subclasses__()]
    assert named == {0, 1} | {kind.exit_code for kind in kinds}


def test_preset_numbers_are_the_presets() -> None:
    text = (ROOT / "docs/training.md").read_text()
    for preset in PRESETS.values():
        if preset.objective["name"] not in ("cskd", "deit"):
            row = re.search(rf"\| {preset.name} \| ([^|]+) \| (\d+) \| ([^|]+) \| `{preset.teacher}` \|", text)
            assert row is not None, preset.name
            assert row[1] == (f"{preset.top1}" if preset.top1 else "not known")
            assert int(row[2]) == preset.train["batch_size"] and float(row[3]) == preset.train["lr"]
            continue
        size = preset.name[5:]
        row = re.search(rf"\| (deit-{size}), (cskd-{size}) \| ([^|]+) \| (\d+) \| ([^|]+) \|", text)
        assert row is not None
        first, second, numbers, batch, rate = row.groups()
        top1 = dict(zip((first, second), map(float, numbers.split(",")), strict=True))
        assert top1[preset.name] == preset.top1
        assert int(batch) == preset.train["batch_size"]
        assert float(rate) == preset.train["lr"]


def test_the_layers_of_the_page_are_those_that_are_checked() -> None:
    page = (ROOT / "docs/architecture.md").read_text()
    listed = re.search(r"```\ncli\n(.*?)```", page, re.DOTALL)
    assert listed is not None
    assert listed[1].split("\n")[:-1] == CONTRACTS["Imports point down the list, along the data"]["layers"]
