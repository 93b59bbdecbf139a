"""What is installed: all of the package, nothing besides, and light to import."""

from __future__ import annotations

import importlib
import importlib.metadata
import pkgutil
import re
import shutil
import subprocess
import sys
import sysconfig
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
    version = cskd_pipeline.__version__
    assert project["project"]["dynamic"] == ["version"]
    assert importlib.metadata.version("cskd-pipeline") == version
    changes = (ROOT / "CHANGELOG.md").read_text()
    assert "## [Unreleased]" in changes and re.search(
        rf"^## \[{re.escape(version)}\] - \d{{4}}-\d\d-\d\d$", changes, re.M
    )
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()
    for file in (ROOT / "deploy").rglob("*"):
        if file.is_file():
            assert {*re.findall(r"cskd-pipeline:(\d[\d.]*\d)", file.read_text())} <= {version}, file


@pytest.mark.slow
def test_a_wheel_installs_and_runs_where_there_is_nothing_else_of_the_project(tmp_path: Path) -> None:
    def run(*words: object) -> str:
        return subprocess.run([*map(str, words)], capture_output=True, text=True, check=True, cwd=tmp_path).stdout

    source = tmp_path / "source"
    for folder in ("cskd_pipeline", "cli", "data_manifests"):
        shutil.copytree(ROOT / folder, source / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, source)
    run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", tmp_path, source)
    (wheel,) = tmp_path.glob("*.whl")
    run(sys.executable, "-m", "uv", "venv", "--python", sys.executable, tmp_path / "env")
    python = tmp_path / "env" / "bin" / "python"
    run(sys.executable, "-m", "uv", "pip", "install", "--python", python, "--no-deps", "--offline", wheel)
    installed = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    # What it depends on is borrowed, by a line that does not read .pth files there, such as the editable install.
    (installed / "borrowed.pth").write_text(sysconfig.get_path("purelib"))
    where = run(python, "-c", f"import {', '.join(PACKAGES)}; print(cskd_pipeline.__file__)")
    assert Path(where.strip()).is_relative_to(installed)
    command = tmp_path / "env" / "bin" / "cskd-pipeline"
    assert run(command, "--version").split()[-1] == cskd_pipeline.__version__
    run(command, "train", "--help")
    run(
        python,
        "-c",
        "from cskd_pipeline.data import load_manifest; assert len(load_manifest('imagenet-1k').classes) == 1000",
    )
    run(command, "index", "--data", "shapes")
    data_files = {
        file for pattern in ("*.css", "*.npz", "*.yaml", "*.txt", "py.typed") for file in installed.rglob(pattern)
    }
    ours = {file.name for file in data_files if file.relative_to(installed).parts[0] in PACKAGES}
    assert {"page.css", "quantiles.npz", "py.typed", "imagenet-1k.yaml"} <= ours


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
