"""From what the user typed for `--data` to a manifest and the place that holds it."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

from cskd_pipeline.data.catalogue import load_manifest, manifest_names, read_manifest
from cskd_pipeline.data.discover import SPLITS, describe_folder, describe_pattern, describe_storage, split_called
from cskd_pipeline.data.manifest import Manifest, Split
from cskd_pipeline.data.root import Root, folder_below, images_in_folders, root_at
from cskd_pipeline.data.shards import SPLIT_FIELD, is_pattern
from cskd_pipeline.data.stored_shards import has_shards
from cskd_pipeline.errors import DataError, UsageError, nearest
from cskd_pipeline.storage import is_address, open_storage

ROOT_VARIABLE = "CSKD_DATA_ROOT"


@dataclasses.dataclass(frozen=True, slots=True)
class DataSource:
    """A data set and where this copy of it lies.

    Attributes:
        manifest: what the data set is.
        root: the folder, or the address in object storage, that the splits' paths are relative to.
        unsplit: True for a shard pattern without `{split}`: it is whichever split is asked for.
        left_out: what else lies in the root, where its splits were found by looking there.

    Raises:
        UsageError: images in class folders would have to be read from object storage.
    """

    manifest: Manifest
    root: Root
    unsplit: bool = False
    left_out: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.root, Path) and any(s.source == "folder" for s in self.manifest.splits.values()):
            raise images_in_folders(f"{self.manifest.name!r} in {self.root.address}")

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
    return next((name for split in ("val", "test") for name in source.splits if split_called(name) == split), None)


def resolve_data(text: str, *, root: str | os.PathLike[str] | None = None) -> DataSource:
    """The data set that `text` names.

    Args:
        text: the name of a shipped manifest, a manifest file (`.yaml`), a folder, a pattern of tar shards, or the
            address of a folder or pattern of them in object storage.
        root: for a manifest's name, the folder or address where the set lies, as ROOT/NAME or directly; default
            `$CSKD_DATA_ROOT`. For a manifest file without `root:`, what its paths are relative to; default the file's
            own folder.

    Raises:
        UsageError: nothing is called `text`, a root is needed and not given, or an address is of no known kind.
        DataError: the folder does not hold the set.
        RetryError: object storage refuses or is out of reach.
    """
    if not text:
        raise UsageError("the data set is empty text; give a manifest's name, a folder or a tar pattern")
    known = manifest_names()
    if text in known:
        manifest = load_manifest(text)
        return DataSource(manifest, _root_of(manifest, root))
    path = Path(text).expanduser()
    if path.suffix in (".yaml", ".yml") and not path.is_dir():
        if is_address(text):
            raise UsageError(f"{text!r}: manifests are read from a disk; copy it there (its root may be an address)")
        manifest, own_root = read_manifest(path)
        if own_root is not None:
            own = root_at(own_root)
            return DataSource(manifest, path.parent / own if isinstance(own, Path) else own)
        return DataSource(manifest, path.parent if root is None else root_at(root))
    if is_address(text) and not is_pattern(text):
        storage = open_storage(text)
        return DataSource(describe_storage(storage), storage)
    if path.is_dir():
        described, left_out = describe_folder(path)
        return DataSource(described, path, left_out=left_out)
    if is_pattern(text):
        manifest, pattern_root = describe_pattern(text if is_address(text) else str(path))
        return DataSource(manifest, pattern_root, unsplit=SPLIT_FIELD not in text)
    raise UsageError(
        f"{text!r} is no folder, tar pattern or manifest{nearest(text, known)}; known manifests: {', '.join(known)}"
    )


def _root_of(manifest: Manifest, root: str | os.PathLike[str] | None) -> Root:
    if all(split.source == "generated" for split in manifest.splits.values()):
        return Path()
    given = root if root is not None else os.environ.get(ROOT_VARIABLE)
    if not given:
        raise UsageError(
            f"where does {manifest.name!r} lie? Give its root (--data-root) or set {ROOT_VARIABLE} "
            f"(for a folder that happens to have this name, write ./{manifest.name})"
        )
    base = root_at(given)
    candidates = folder_below(base, manifest.name), base
    for candidate in candidates:
        if any(_is_there(candidate, split) for split in manifest.splits.values()):
            return candidate
    expected = ", ".join(split.path for split in manifest.splits.values())
    raise DataError(
        f"{manifest.name!r} was not found in {' or '.join(map(_shown, candidates))}: expected {expected} inside. "
        f"How to get it: {' '.join(manifest.notes.split())}"
    )


def _is_there(root: Root, split: Split) -> bool:
    if split.source != "folder":
        return has_shards(root, split.path)
    # In object storage it is refused later, wherever it lies.
    return not isinstance(root, Path) or (root / split.path).is_dir()


def _shown(root: Root) -> str:
    return str(root) if isinstance(root, Path) else root.address
