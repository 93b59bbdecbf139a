"""Opening a store's root: what is there, and whether this version may read it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cskd_pipeline.errors import DataError, MismatchError, UsageError
from cskd_pipeline.records.durable import write_atomic, writing
from cskd_pipeline.store.header import FORMAT, FORMAT_VERSION, StoreHeader

LOCK = ".lock"
"""Name of the file that the one writer locks."""


def is_store(path: Path) -> bool:
    """Whether a zarr group with our attributes lies at `path`."""
    return _attributes(path).get("format") == FORMAT


def require_store_or_room(path: Path) -> None:
    """Nothing, if `path` is a label store (perhaps one that lost its attributes), or a new one can be made there.

    Raises:
        DataError: something else lies there.
        RetryError: it cannot be told.
    """
    with writing(path):
        if not path.exists() or is_store(path) or first_commit(path) is not None:
            return
        # An empty folder will do, and so will what a store's creation left when it was cut off.
        if path.is_dir() and all(e.name == LOCK or e.name.endswith(".partial") for e in path.iterdir()):
            return
        raise DataError(f"{path} exists and is no label store; give another --out, or remove it")


def first_commit(path: Path) -> Path | None:
    """A commit file below `path`, if there is one: what has them is a label store, whatever its attributes say."""
    return next(path.glob("seed-*/commits/*.json"), None)


def write_header(path: Path, header: StoreHeader) -> None:
    """Put the attributes of a store's root on stable storage.

    Raises:
        RetryError: the storage refuses.
    """
    group = {"attributes": header.to_json(), "zarr_format": 3, "node_type": "group"}
    text = json.dumps(group, indent=2)
    write_atomic(path / "zarr.json", lambda file: file.write(text.encode()))


def read_header(path: Path) -> StoreHeader:
    """The header of the store at `path`.

    Raises:
        DataError: nothing is there, or something that is no label store.
        MismatchError: the store was written by a newer version.
    """
    if not path.exists():
        raise DataError(f"no label store at {path}: it does not exist; make one with `cskd-pipeline precompute`")
    attributes = _attributes(path)
    if attributes.get("format") != FORMAT and first_commit(path) is not None:
        raise DataError(
            f"{path / 'zarr.json'} is missing or damaged; the labels beside it are not lost: the command that made the "
            "store writes it again"
        )
    if attributes.get("format") != FORMAT:
        raise DataError(f"{path} is not a label store (no zarr group with format {FORMAT!r}); give the path of one")
    version = attributes.get("format_version")
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise MismatchError(
            f"{path} has store format {version}, this version reads up to {FORMAT_VERSION}; upgrade cskd-pipeline"
        )
    try:
        return StoreHeader.from_json(attributes)
    except (UsageError, TypeError, KeyError) as error:
        raise DataError(f"the attributes of {path} are damaged ({error}); restore zarr.json from a copy") from error


def _attributes(path: Path) -> dict[str, Any]:
    try:
        group = json.loads((path / "zarr.json").read_text())
        attributes = group["attributes"]
        return attributes if isinstance(attributes, dict) and group.get("node_type") == "group" else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
