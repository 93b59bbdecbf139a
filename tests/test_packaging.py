"""What is installed: all of the package, nothing besides, and light to import."""

from __future__ import annotations

import importlib
import importlib.metadata
import pkgutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

import cskd_pipeline

ROOT = Path(__file__).parents[1]
PACKAGES = ("cskd_pipeline", "cskd_pipeline_cli", "cskd_pipeline_data_manifests")


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def folders_with_code(top: Path) -> set[Path]:
    return {file.parent.relative_to(ROOT) for file in top.rglob("*.py")}


def test_every_folder_of_code_is_a_listed_package(project: dict[str, Any]) -> None:
    settings = project["tool"]["setuptools"]
    folder_of = {name: Path(folder) for name, folder in settings["package-dir"].items()}
    assert set(folder_of) == set(PACKAGES)
    listed = set()
    for package in settings["packages"]:
        top, *below = package.split(".")
        listed.add(folder_of[top].joinpath(*below))
    on_disk = set().union(*(folders_with_code(ROOT / folder) for folder in folder_of.values()))
    assert listed == on_disk
    assert all((ROOT / folder / "__init__.py").is_file() for folder in listed)


def test_every_data_file_is_listed(project: dict[str, Any]) -> None:
    settings = project["tool"]["setuptools"]
    for package, folder in settings["package-dir"].items():
        for file in (ROOT / folder).rglob("*"):
            if "__pycache__" in file.parts or (file.suffix in ("", ".py") and file.name != "py.typed"):
                continue
            name = ".".join((package, *file.parent.relative_to(ROOT / folder).parts))
            patterns = settings["package-data"].get(name, [])
            assert any(file.match(pattern) for pattern in patterns), f"{file} would not be installed"


def test_types_are_announced() -> None:
    assert (ROOT / "cskd_pipeline" / "py.typed").read_bytes() == b""


def test_the_version_is_one(project: dict[str, Any]) -> None:
    assert cskd_pipeline.__version__ == project["project"]["version"] == importlib.metadata.version("cskd-pipeline")
    assert "## [Unreleased]" in (ROOT / "CHANGELOG.md").read_text()


def test_the_command_is_installed(project: dict[str, Any]) -> None:
    (command,) = importlib.metadata.entry_points(group="console_scripts", name="cskd-pipeline")
    assert command.value == project["project"]["scripts"]["cskd-pipeline"]
    assert callable(command.load())


def test_every_module_imports() -> None:
    imported = 0
    for package in PACKAGES:
        path = importlib.import_module(package).__path__
        for module in pkgutil.walk_packages(path, package + "."):
            if not module.name.endswith(".__main__"):  # which runs the command
                importlib.import_module(module.name)
                imported += 1
    assert imported > 100


LIGHT = (
    "cskd_pipeline",
    "cskd_pipeline.errors",
    "cskd_pipeline.record",
    "cskd_pipeline.data",
    "cskd_pipeline.labels",
    "cskd_pipeline.crops.recipe",
    "cskd_pipeline.store",
    "cskd_pipeline_cli.main",
)


def test_looking_at_a_store_needs_neither_torch_nor_numba() -> None:
    code = f"import sys, {', '.join(LIGHT)}; print(*({{'torch', 'timm', 'torchvision', 'numba'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_importing_a_package_leaves_no_module_under_a_common_name() -> None:
    for name in ("cli", "data_manifests", "tests"):
        code = f"import sys, {', '.join(PACKAGES)}; sys.path = [p for p in sys.path if p]; import {name}"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd="/")
        assert f"No module named '{name}'" in done.stderr
