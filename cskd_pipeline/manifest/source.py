"""From what the user typed for `--data` to a manifest and the folder that holds it."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

from cskd_pipeline.errors import DataError, UsageError, nearest
from cskd_pipeline.manifest.catalogue import load_manifest, manifest_names, read_manifest
from cskd_pipeline.manifest.discover import SPLITS, describe_folder, describe_pattern
from cskd_pipeline.manifest.manifest import Manifest, Split
from cskd_pipeline.manifest.shards import SPLIT_FIELD, expand_shards, is_pattern

ROOT_VARIABLE = "CSKD_DATA_ROOT"


@dataclasses.dataclass(frozen=True, slots=True)
class DataSource:
    """A data set and where this copy of it lies.

    Attributes:
        manifest: what the data set is.
        root: the folder that the splits' paths are relative to.
        unsplit: True for a shard pattern without `{split}`: it is whichever split is asked for.
    """

    manifest: Manifest
    root: Path
    unsplit: bool = False

    @property
    def splits(self) -> tuple[str, ...]:
        """The names of the splits, in the manifest's order."""
        return tuple(self.manifest.splits)

    def split(self, name: str) -> Split:
        """The split of this name.

        Raises:
            UsageError: the data set has no such split; the message names those it has.
        """
        if self.unsplit and name in SPLITS:
            return self.manifest.splits["train"]
        try:
            return self.manifest.splits[name]
        except KeyError:
            have = list(self.splits)
            raise UsageError(
                f"data set {self.manifest.name!r} has no split {name!r}{nearest(name, have)}; it has {', '.join(have)}"
            ) from None


def evaluation_split(source: DataSource) -> str | None:
    """The split to evaluate on: "val", else "test", else None."""
    return next((name for name in ("val", "test") if name in source.splits), None)


def resolve_data(text: str, *, root: str | os.PathLike[str] | None = None) -> DataSource:
    """The data set that `text` names.

    Args:
        text: the name of a shipped manifest, a manifest file (`.yaml`), a folder, or a pattern of tar shards.
        root: for a manifest's name, the folder in which the set lies, as ROOT/NAME or directly; default
            `$CSKD_DATA_ROOT`. For a manifest file without `root:`, the folder that its paths are relative to;
            default the file's own.

    Raises:
        UsageError: nothing is called `text`, or a root is needed and not given.
        DataError: the folder does not hold the set.
    """
    if not text:
        raise UsageError("the data set is empty text; give a manifest's name, a folder or a tar pattern")
    known = manifest_names()
    if text in known:
        manifest = load_manifest(text)
        return DataSource(manifest, _root_of(manifest, root))
    path = Path(text).expanduser()
    if path.suffix in (".yaml", ".yml"):
        manifest, own_root = read_manifest(path)
        if own_root is not None:
            return DataSource(manifest, path.parent / Path(own_root).expanduser())
        return DataSource(manifest, path.parent if root is None else Path(root))
    if path.is_dir():
        return DataSource(describe_folder(path), path)
    if is_pattern(text):
        manifest, pattern_root = describe_pattern(str(path))
        return DataSource(manifest, pattern_root, unsplit=SPLIT_FIELD not in text)
    raise UsageError(
        f"{text!r} is no folder, tar pattern or manifest{nearest(text, known)}; known manifests: {', '.join(known)}"
    )


def _root_of(manifest: Manifest, root: str | os.PathLike[str] | None) -> Path:
    if all(split.source == "generated" for split in manifest.splits.values()):
        return Path()
    given = root if root is not None else os.environ.get(ROOT_VARIABLE)
    if not given:
        raise UsageError(
            f"where does {manifest.name!r} lie? Give its root (--data-root) or set {ROOT_VARIABLE} "
            f"(for a folder that happens to have this name, write ./{manifest.name})"
        )
    base = Path(given).expanduser()
    for candidate in (base / manifest.name, base):
        if any(_is_there(candidate, split) for split in manifest.splits.values()):
            return candidate
    expected = ", ".join(split.path for split in manifest.splits.values())
    raise DataError(
        f"{manifest.name!r} was not found in {base / manifest.name} or {base}: expected {expected} inside. "
        f"How to get it: {' '.join(manifest.notes.split())}"
    )


def _is_there(root: Path, split: Split) -> bool:
    if split.source == "folder":
        return (root / split.path).is_dir()
    try:
        return bool(expand_shards(root, split.path))
    except DataError:
        return False
