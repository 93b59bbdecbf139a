"""From what the user typed for `--data` to a manifest and the place that holds it."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path

from cskd_pipeline.data.class_list import CLASSES_NAME, ClassList
from cskd_pipeline.data.file_list import LIST_SUFFIXES, list_beside
from cskd_pipeline.data.folder_listing import class_folders, holds_images
from cskd_pipeline.data.listing import PARQUET_SUFFIX, parquet_remedy
from cskd_pipeline.data.manifest import Manifest, Split, load_manifest, manifest_names, read_manifest
from cskd_pipeline.data.shards import SPLIT_FIELD, find_shards, has_shards, is_pattern, root_and_pattern
from cskd_pipeline.errors import DataError, UsageError, nearest
from cskd_pipeline.storage import FolderStorage, Storage, is_address, open_storage
from cskd_pipeline.storage.durable import reading
from cskd_pipeline.storage.names import native, shown, utf8

ROOT_VARIABLE = "CSKD_DATA_ROOT"

SPLIT_WORDS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "eval", "evaluation", "dev"),
    "test": ("test", "testing"),
}
"""The splits, and the words that folders and shards are called by for them, in letters of either case."""

_SPLIT_OF = {word: split for split, words in SPLIT_WORDS.items() for word in words}
_SHARD = re.compile(r"([A-Za-z]+)([-_]?)(.*)\.tar")


@dataclasses.dataclass(frozen=True, slots=True)
class DataSource:
    """A data set and where this copy of it lies.

    Attributes:
        manifest: what the data set is.
        root: the folder, or the address in object storage, that the splits' paths are relative to.
        unsplit: True for a shard pattern without `{split}`: it is whichever split is asked for.
        left_out: what else lies in the root, where its splits were found by looking there.
        unordered: True where nothing but their names orders the class folders.

    Raises:
        UsageError: images in class folders would have to be read from object storage.
    """

    manifest: Manifest
    root: Storage
    unsplit: bool = False
    left_out: tuple[str, ...] = ()
    unordered: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.root, FolderStorage) and ".." in self.root.root.parts:  # one place, one index
            object.__setattr__(self, "root", FolderStorage(self.root.root.resolve()))
        if any(split.source in ("folder", "list") for split in self.manifest.splits.values()):
            local_folder(self.root)

    @property
    def splits(self) -> tuple[str, ...]:
        """The names of the splits, in the manifest's order."""
        return tuple(self.manifest.splits)

    def called(self, name: str) -> str:
        """What the data set calls the split that goes by this name, or by another word for it."""
        have = [word for word in self.splits if word != name and split_called(word) == split_called(name)]
        if name in self.splits or not split_called(name) or (len(have) != 1 and not self.unsplit):
            return name
        return str(split_called(name)) if self.unsplit else have[0]

    def split(self, name: str) -> Split:
        """The split of this name, or of another word for it.

        Raises:
            UsageError: the data set has no such split; the message names those it has.
        """
        name = self.called(name)
        if self.unsplit and name in SPLIT_WORDS:
            return self.manifest.splits["train"]
        try:
            return self.manifest.splits[name]
        except KeyError:
            have = list(self.splits)
            raise UsageError(
                f"data set {self.manifest.name!r} has no split {name!r}{nearest(name, have)}; it has {', '.join(have)}"
            ) from None


def evaluation_split(source: DataSource) -> str | None:
    """The split to evaluate on: "val", else "test", by any of their words, else None."""
    return next((name for split in ("val", "test") for name in source.splits if split_called(name) == split), None)


def resolve_data(text: str, *, root: str | os.PathLike[str] | None = None) -> DataSource:
    """The data set that `text` names.

    Args:
        text: the name of a shipped manifest, a manifest file (`.yaml`), a folder, a list of files (`.txt`, `.csv`,
            `.tsv`), a pattern of tar shards, or the address of a folder or pattern of them in object storage.
        root: for a manifest's name, the folder or address where the set lies, as ROOT/NAME or directly; default
            `$CSKD_DATA_ROOT`. For a manifest file without `root:`, what its paths are relative to; default the file's
            own folder.

    Raises:
        UsageError: nothing is called `text`, a root is needed and not given, or an address is of no known kind.
        DataError: the folder does not hold the set.
    """
    if not text:
        raise UsageError("the data set is empty text; give a manifest's name, a folder or a tar pattern")
    known = manifest_names()
    if text in known:
        manifest = load_manifest(text)
        return _with_classes(manifest, _root_of(manifest, root))
    path = Path(native(text)).expanduser()
    if path.suffix == PARQUET_SUFFIX:
        raise UsageError(parquet_remedy(text if is_address(text) else f"'{text}'"))
    if path.suffix in (".yaml", ".yml") and not path.is_dir():
        if is_address(text):
            raise UsageError(f"{text!r}: manifests are read from a disk; copy it there (its root may be an address)")
        manifest, own_root = read_manifest(path)
        if own_root is not None:
            return _with_classes(manifest, root_at(own_root, beside=path))
        return _with_classes(manifest, FolderStorage(path.parent) if root is None else root_at(root))
    if path.is_dir() or (is_address(text) and not is_pattern(text)):
        return _describe(root_at(text))
    if path.suffix.lower() in LIST_SUFFIXES and path.is_file():
        return _describe_list(path)
    if is_pattern(text):
        return _describe_pattern(text if is_address(text) else str(path))
    raise UsageError(
        f"{text!r} is no folder, tar pattern or manifest{nearest(text, known)}; known manifests: {', '.join(known)}"
    )


def root_at(location: str | os.PathLike[str], *, beside: Path | None = None) -> Storage:
    """The folder at a path, relative to the folder of the file `beside`, or the storage at a URL.

    Raises:
        UsageError: the URL is malformed, or of a kind that is not read.
    """
    text = os.fspath(location)
    if is_address(text):
        return open_storage(text, published=False)
    path = Path(native(text)).expanduser()
    return FolderStorage(path if beside is None else beside.parent / path)


def local_folder(root: Storage) -> Path:
    """The folder of a disk that `root` is.

    Raises:
        UsageError: it is object storage, where images in class folders are not read.
    """
    if isinstance(root, FolderStorage):
        return root.root
    raise UsageError(
        f"{root.address}: images in class folders are not read from object storage, only tar shards; pack them "
        "(cskd-pipeline pack), upload the tars and give their address (--data s3://bucket/path)"
    )


def _root_of(manifest: Manifest, root: str | os.PathLike[str] | None) -> Storage:
    if all(split.source == "generated" for split in manifest.splits.values()):
        return FolderStorage(Path())
    given = root if root is not None else os.environ.get(ROOT_VARIABLE)
    if not given:
        raise UsageError(
            f"where does {manifest.name!r} lie? Give its root (--data-root) or set {ROOT_VARIABLE} "
            f"(for a folder that happens to have this name, write ./{manifest.name})"
        )
    base = root_at(given)
    candidates = open_storage(base.at(manifest.name), published=False), base
    for candidate in candidates:
        if any(_is_there(candidate, split) for split in manifest.splits.values()):
            return candidate
    expected = ", ".join(split.path for split in manifest.splits.values())
    raise DataError(
        f"{manifest.name!r} was not found in {' or '.join(place.address for place in candidates)}: expected {expected} "
        f"inside. How to get it: {' '.join(manifest.notes.split())}"
    )


def _is_there(root: Storage, split: Split) -> bool:
    if split.source != "folder":
        return has_shards(root, split.path)
    return (local_folder(root) / native(split.path)).is_dir()


def _describe(root: Storage) -> DataSource:
    """Shards `<split>-*.tar`, split folders, or class folders alone.

    The classes of image folders are those of the training split, so that a class missing from `val/` is found
    when `val/` is indexed, and never shifts the labels behind it.

    Raises:
        UsageError: two folders or kinds of shards are called by words for one split, tars by none, or object storage
            holds folders alone.
        DataError: it holds none of these layouts, or a class list does not fit the class folders.
    """
    name, where = _name_of(root), root.address
    local = root.root if isinstance(root, FolderStorage) else None
    entries = sorted([*(file.name for file in root.files(deep=False)), *(root.folders() if local else [])])
    folders = {} if local is None else _split_folders(local)
    shards = {
        split: spec
        for split, spec in _shard_splits(where, entries).items()
        if split not in folders or "*" in spec.path  # `train.tar` beside `train/` is what that was unpacked from
    }
    if shards:
        used = [spec.path for spec in shards.values()] + [CLASSES_NAME]
        rest = tuple(entry for entry in entries if not any(fnmatchcase(entry, pattern) for pattern in used))
        return DataSource(Manifest(name, splits=shards), root, left_out=rest)
    if local is not None and folders:
        splits = {split: Split("folder", word) for split, word in folders.items()}
        source = _with_classes(Manifest(name, splits=splits), root, found=True)
        taken = {*folders.values(), *(spec.list for spec in source.manifest.splits.values())}
        if source.manifest.classes and not source.unordered:
            taken.add(CLASSES_NAME)
        return dataclasses.replace(source, left_out=tuple(entry for entry in entries if entry not in taken))
    classes = () if local is None else class_folders(local)
    tars = any(entry.endswith(".tar") for entry in entries)
    parquet = any(entry.endswith(PARQUET_SUFFIX) for entry in entries)
    images = (tars or parquet) and local is not None and any(holds_images(local / native(entry)) for entry in classes)
    if parquet and not tars and not images:
        raise UsageError(parquet_remedy(where))
    if tars and not images:
        raise UsageError(
            f"{where} holds tar files, but none is called <split>-*.tar with split {', '.join(SPLIT_WORDS)}; "
            f"name them by a pattern such as '{where}/*.tar'"
        )
    if local is None and root.folders():
        local_folder(root)
    if not classes:
        folders_or = "" if local is None else "train/, val/, test/ with class folders in them, class folders alone, or "
        raise DataError(f"{where} holds no data set: expected {folders_or}shards called <split>-*.tar")
    return _with_classes(Manifest(name, splits={"train": Split("folder", ".")}), root, found=True)


def _describe_list(file: Path) -> DataSource:
    """The data set of a list: its split is the one that it is called by, else whichever is asked for."""
    split = split_called(file.stem)
    folder = file.stem if (file.parent / file.stem).is_dir() else "."
    spec = Split("list", utf8(folder), list=utf8(file.name))
    root = FolderStorage(file.parent)
    manifest = Manifest(_name_of(root), splits={split or "train": spec})
    return dataclasses.replace(_with_classes(manifest, root), unsplit=split is None)


def _with_classes(manifest: Manifest, root: Storage, *, found: bool = False) -> DataSource:
    """The data set with what lists beside its images say, and its class folders, unless the manifest says it.

    A split's folder that holds images and no class folders is one of listed files, if there is a list of them. A
    `classes.txt` in the root or in a split's folder orders class folders; else their names do, as text. With `found`,
    or where a split is a list, the classes are the folders of the first split that has any.

    Raises:
        DataError: there are two lists of a split's images, or two class lists differ, or one does not fit the folders.
    """
    if not isinstance(root, FolderStorage):
        return DataSource(manifest, root)
    splits = {name: _listed(root.root, name, spec) for name, spec in manifest.splits.items()}
    if splits != manifest.splits:
        manifest = dataclasses.replace(manifest, splits=splits)
    specs = [spec for spec in splits.values() if spec.source in ("folder", "list")]
    if not specs:
        return DataSource(manifest, root)
    places = [root.root / native(spec.path) for spec in specs if spec.source == "folder"]
    folders = next((inside for place in places if place.is_dir() and (inside := class_folders(place))), ())
    if manifest.classes:
        if set(folders) <= set(manifest.classes):
            return DataSource(manifest, root)
        if set(folders) <= manifest.class_list.spellings:  # another column of the manifest's class list
            manifest = manifest.with_classes(manifest.class_list.of_folders(folders), partial=bool(manifest.partial))
        return DataSource(manifest, root)
    listed = _class_list(root.root, places)
    if listed is not None:
        listed = listed.of_folders(folders) if folders else listed
        return DataSource(manifest.with_classes(listed, partial=bool(folders)), root)
    if found or any(spec.source == "list" for spec in specs):
        manifest = dataclasses.replace(manifest, classes=folders)
    return DataSource(manifest, root, unordered=bool(folders))


def _listed(root: Path, name: str, spec: Split) -> Split:
    """A split of class folders; or of listed files, where its images lie in one folder and there is a list of them."""
    if spec.source != "folder" or spec.path == "." or not (root / native(spec.path)).is_dir():
        return spec
    listed = list_beside(root, spec.path, SPLIT_WORDS.get(split_called(name) or "", (name,)))
    return spec if listed is None else dataclasses.replace(spec, source="list", path=listed[0], list=listed[1])


def _class_list(root: Path, folders: Iterable[Path]) -> ClassList | None:
    """The class list in the root of a data set or in a split's folder."""
    found: ClassList | None = None
    for folder in dict.fromkeys((root, *folders)):
        file = folder / CLASSES_NAME
        if file.is_file():
            with reading(file):
                listed = ClassList.parse(file.read_bytes(), where=utf8(file))
            if found is not None and listed.rows != found.rows:
                raise DataError(f"{found.where} and {listed.where} differ; keep one of them")
            found = found or listed
    return found


def _describe_pattern(text: str) -> DataSource:
    """The data set of a shard pattern: with `{split}` in it its splits are those that match files."""
    root, pattern = root_and_pattern(text)
    if SPLIT_FIELD not in pattern:
        find_shards(root, pattern)
        return DataSource(Manifest(_name_of(root), splits={"train": Split("tar", pattern)}), root, unsplit=True)
    patterns = {word: pattern.replace(SPLIT_FIELD, word) for word in _SPLIT_OF}
    there = {candidate: word for word, candidate in patterns.items() if has_shards(root, candidate)}
    found = {split: Split("tar", candidate) for split, candidate in _by_split(root.address, there).items()}
    if not found:
        raise DataError(
            f"{text!r} matches no file for split {', '.join(SPLIT_WORDS)}; check the folder and the pattern"
        )
    return DataSource(Manifest(_name_of(root), splits=found), root)


def split_called(word: str) -> str | None:
    """The split that a word stands for; None for any other word."""
    return _SPLIT_OF.get(word.lower())


def _split_folders(folder: Path) -> dict[str, str]:
    """The folders that are called by a word for a split; none where they are classes among others."""
    inside = class_folders(folder)
    words = [name for name in inside if split_called(name)]
    if len(words) < len(inside) and not any(
        class_folders(folder / native(word)) or list_beside(folder, word, SPLIT_WORDS[str(split_called(word))])
        for word in words
    ):
        return {}
    return _by_split(str(folder), {word: word for word in words})


def _shard_splits(where: str, names: Iterable[str]) -> dict[str, Split]:
    """The splits that the tars among the files of a folder are named for."""
    patterns = {}
    for name in names:
        if (match := _SHARD.fullmatch(name)) and split_called(match[1]) and (match[2] or not match[3]):
            patterns[f"{match[1]}{match[2]}*.tar" if match[2] else name] = match[1]
    return {split: Split("tar", pattern) for split, pattern in _by_split(where, patterns).items()}


def _by_split(where: str, words: Mapping[str, str]) -> dict[str, str]:
    """From split to the one name whose word stands for it."""
    found = {}
    for split in SPLIT_WORDS:
        names = [name for name, word in words.items() if split_called(word) == split]
        if len(names) > 1:
            raise UsageError(
                f"{where} holds {' and '.join(names)}, which both stand for the split {split}; name one of them by a "
                "pattern or a manifest, or rename it"
            )
        if names:
            found[split] = names[0]
    return found


def _name_of(root: Storage) -> str:
    return shown(root.address.rpartition("/")[2]) or "data"
