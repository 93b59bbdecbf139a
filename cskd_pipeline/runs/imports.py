"""Modules of the user's own, imported before the work: they register their models with timm."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterable
from pathlib import Path

from cskd_pipeline.errors import UsageError, first_line


def import_modules(names: Iterable[str]) -> None:
    """Import modules by name, from the current folder too, or by the path of a .py file, each once.

    Raises UsageError if there is no such module, or its import fails.
    """
    for name in names:
        path = Path(name)
        is_file = path.suffix == ".py"
        if (path.stem if is_file else name) in sys.modules:
            continue
        try:
            if is_file:
                _import_file(path)
            else:
                _import_name(name)
        except Exception as error:  # whatever it does when it is imported
            kind = "" if isinstance(error, ImportError | FileNotFoundError) else f"{type(error).__name__}: "
            raise UsageError(
                f"--import {name} fails ({kind}{first_line(error)}); give a module or a .py file"
            ) from error


def _import_name(name: str) -> None:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    importlib.import_module(name)


def _import_file(path: Path) -> None:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[path.stem]
        raise
