"""The manifests that ship with the package, and reading a manifest from YAML."""

from __future__ import annotations

import importlib.resources
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cskd_pipeline.data.class_list import parse_class_list
from cskd_pipeline.data.manifest import Manifest
from cskd_pipeline.errors import UsageError, nearest
from cskd_pipeline.storage.names import native

_PACKAGE = "cskd_pipeline_data_manifests"


def manifest_names() -> list[str]:
    """The names of the shipped manifests, sorted."""
    files = importlib.resources.files(_PACKAGE).iterdir()
    return sorted(file.name.removesuffix(".yaml") for file in files if file.name.endswith(".yaml"))


def load_manifest(name: str) -> Manifest:
    """The shipped manifest of this name.

    Raises:
        UsageError: no such manifest; the message names the nearest ones.
    """
    known = manifest_names()
    if name not in known:
        raise UsageError(f"no manifest is called {name!r}{nearest(name, known)}; known: {', '.join(known)}")
    folder = importlib.resources.files(_PACKAGE)
    text = (folder / f"{name}.yaml").read_text(encoding="utf-8")
    manifest, _ = parse_manifest(
        text, where=f"{name}.yaml", sibling=lambda file: (folder / file).read_text(encoding="utf-8")
    )
    return manifest


def read_manifest(file: Path) -> tuple[Manifest, str | None]:
    """The manifest in a YAML file, and its `root:` as written (None where it has none).

    Raises:
        UsageError: the file cannot be read, is not YAML, or has an unknown or missing field.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"manifest {file} cannot be read: {error}") from error

    def sibling(name: str) -> str:
        return (file.parent / native(name)).read_text(encoding="utf-8-sig")

    return parse_manifest(text, where=str(file), sibling=sibling)


def parse_manifest(text: str, *, where: str, sibling: Callable[[str], str]) -> tuple[Manifest, str | None]:
    """The manifest that a YAML document describes, and its `root:`.

    Args:
        text: the document.
        where: its name, for messages.
        sibling: gives the text of the file that `classes_file:` names.

    Raises:
        UsageError: as `read_manifest`.
    """
    import yaml

    try:
        fields: Any = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UsageError(f"{where} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(fields, dict):
        raise UsageError(f"{where} must be a mapping of name, classes and splits, found {type(fields).__name__}")
    root = fields.pop("root", None)
    if root is not None and not isinstance(root, str):
        raise UsageError(f"{where}: root must be a folder's name, found {root!r}")
    classes_file = fields.pop("classes_file", None)
    if classes_file is not None:
        if "classes" in fields:
            raise UsageError(f"{where} gives both classes and classes_file; keep one")
        try:
            fields["classes"] = list(parse_class_list(sibling(str(classes_file))))
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"{where}: classes_file {classes_file!r} cannot be read: {error}") from error
    try:
        return Manifest.from_json(fields), root
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from error
