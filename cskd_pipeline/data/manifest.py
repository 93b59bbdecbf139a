"""What a data set is: its classes, its splits, and how many images each should hold; read from YAML."""

from __future__ import annotations

import dataclasses
import importlib.resources
from collections.abc import Mapping
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, Self

from cskd_pipeline.data.class_list import ClassList
from cskd_pipeline.errors import DataError, UsageError, nearest
from cskd_pipeline.record import Record, later, require_flag
from cskd_pipeline.storage.names import native

_PACKAGE = "cskd_pipeline_data_manifests"

SOURCES = ("folder", "tar", "list", "generated")


@dataclasses.dataclass(frozen=True, slots=True)
class Split(Record):
    """Where one split of a data set lies, and what it must amount to.

    Attributes:
        source: "folder" (class folders of images), "tar" (WebDataset shards), "list" (files that a list names) or
            "generated" (drawn).
        path: relative to the data set's root: the folder of class folders or of listed files, or the pattern of the
            shards (glob and braces). Unused where the images are generated.
        count: the number of images, or None where it is not known beforehand.
        index_digest: the digest that the split's index must have, or None where any will do.
        list: the file that lists images and labels, relative to the root; for the source "list" alone.
    """

    source: str
    path: str = "."
    count: int | None = None
    index_digest: str | None = None
    list: str | None = later()

    def __post_init__(self) -> None:
        if self.source not in SOURCES:
            raise UsageError(
                f"a split's source is {self.source!r}{nearest(str(self.source), [*SOURCES])}; "
                f"known: {', '.join(SOURCES)}"
            )
        if not isinstance(self.path, str):
            raise UsageError(f"a split's path must be text, found {self.path!r}")
        if self.count is not None and (type(self.count) is not int or self.count < 1):
            raise UsageError(f"a split's count must be a whole number of at least 1, found {self.count!r}")
        if self.index_digest is not None and not isinstance(self.index_digest, str):
            raise UsageError(f"a split's index_digest must be text (quote it), found {self.index_digest!r}")
        if self.source == "list" and (not isinstance(self.list, str) or not self.list):
            raise UsageError(f"a split whose source is a list names it, such as `list: val.txt`; found {self.list!r}")
        if self.source != "list" and self.list is not None:
            raise UsageError(f"a split has a list ({self.list!r}) and source {self.source!r}; write `source: list`")


@dataclasses.dataclass(frozen=True, slots=True)
class Manifest(Record):
    """The description of a data set; label N is class N.

    Attributes:
        name: the short name that stores and reports carry.
        description: one sentence for a person.
        classes: the class names in label order; for folders these are their names. Empty: as found.
        splits: from split name ("train", "val", "test") to `Split`.
        homepage: where the data set comes from.
        notes: how to get it and lay it out.
        other_names: what else each class may be called in labels, by label; None for nothing.
        partial: True where class folders may be missing; their classes have no image in that split.
    """

    name: str
    description: str = ""
    classes: tuple[str, ...] = ()
    splits: Mapping[str, Split] = dataclasses.field(default_factory=dict)
    homepage: str = ""
    notes: str = ""
    other_names: tuple[tuple[str, ...], ...] | None = later()
    partial: bool | None = later()

    def __post_init__(self) -> None:
        for field in ("name", "description", "homepage", "notes"):
            if not isinstance(getattr(self, field), str):
                raise UsageError(f"{field} of a manifest must be text, found {getattr(self, field)!r}")
        if not self.name:
            raise UsageError("a manifest needs a name that is not empty")
        if not self.splits:
            raise UsageError(f"manifest {self.name!r} names no split; give at least `splits: {{train: ...}}`")
        if not isinstance(self.classes, tuple):
            raise UsageError(f"classes of manifest {self.name!r} must be a list, found {self.classes!r}")
        seen: set[str] = set()
        for entry in self.classes:
            if not isinstance(entry, str) or not entry:
                raise UsageError(
                    f"a class of manifest {self.name!r} is {entry!r}: class names are text; put it in quotes"
                )
            if entry in seen:
                raise UsageError(f"manifest {self.name!r} lists class {entry!r} twice")
            seen.add(entry)
        names = self.other_names
        if names is not None:
            if not isinstance(names, tuple) or not all(
                isinstance(row, tuple) and all(isinstance(entry, str) for entry in row) for row in names
            ):
                raise UsageError(
                    f"other_names of manifest {self.name!r} must be a list of lists of text, found {names!r}"
                )
            if len(names) != len(self.classes):
                raise UsageError(
                    f"manifest {self.name!r} has other_names of {len(names)} classes and names of {len(self.classes)}"
                )
        if self.partial is not None:
            require_flag(f"partial of manifest {self.name!r}", self.partial)

    @property
    def class_list(self) -> ClassList:
        """What the classes may be called in labels; empty where `classes` is."""
        others = self.other_names or ((),) * len(self.classes)
        rows = tuple((name, *other) for name, other in zip(self.classes, others, strict=True))
        return ClassList(rows, f"the classes of {self.name}")

    def with_classes(self, listed: ClassList, *, partial: bool = False) -> Self:
        """The same data set, its classes those of a list."""
        others = tuple(row[1:] for row in listed.rows)
        return dataclasses.replace(
            self, classes=listed.names, other_names=others if any(others) else None, partial=partial or None
        )

    def to_json(self) -> dict[str, Any]:
        """The fields as plain JSON values."""
        # Called by name: the zero-argument form of super() needs the class that `slots=True` has replaced.
        plain = super(Manifest, self).to_json()
        return {**plain, "splits": {name: split.to_json() for name, split in self.splits.items()}}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """The manifest with these fields; its splits are mappings of `Split`'s fields.

        Raises:
            UsageError: a field is unknown, missing or of the wrong kind.
        """
        splits = values.get("splits")
        if not isinstance(splits, Mapping) or not all(isinstance(split, Mapping) for split in splits.values()):
            raise UsageError(f"splits of a manifest must map names to their fields, found {splits!r}")
        parsed = {str(name): Split.from_json(fields) for name, fields in splits.items()}
        # Called by name: the zero-argument form of super() needs the class that `slots=True` has replaced.
        return super(Manifest, cls).from_json({**values, "splits": parsed})


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
    return read_manifest(importlib.resources.files(_PACKAGE) / f"{name}.yaml")[0]


def read_manifest(file: Path | Traversable) -> tuple[Manifest, str | None]:
    """The manifest in a YAML file, and its `root:` as written (None where it has none).

    Raises:
        UsageError: the file cannot be read, is not YAML, or has an unknown or missing field.
    """
    import yaml

    try:
        fields: Any = yaml.safe_load(file.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"manifest {file} cannot be read: {error}") from error
    except yaml.YAMLError as error:
        raise UsageError(f"{file} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(fields, dict):
        raise UsageError(f"{file} must be a mapping of name, classes and splits, found {type(fields).__name__}")
    root = fields.pop("root", None)
    if root is not None and not isinstance(root, str):
        raise UsageError(f"{file}: root must be a folder's name, found {root!r}")
    classes_file = fields.pop("classes_file", None)
    if classes_file is not None:
        if "classes" in fields:
            raise UsageError(f"{file} gives both classes and classes_file; keep one")
        folder = file.parent if isinstance(file, Path) else importlib.resources.files(_PACKAGE)
        try:
            listed = ClassList.parse((folder / native(str(classes_file))).read_bytes(), where=str(classes_file))
        except (OSError, DataError) as error:
            raise UsageError(f"{file}: classes_file {classes_file!r} cannot be read: {error}") from error
        fields["classes"] = [*listed.names]
        if any(len(row) > 1 for row in listed.rows):
            fields.setdefault("other_names", [[*row[1:]] for row in listed.rows])
    try:
        return Manifest.from_json(fields), root
    except UsageError as error:
        raise UsageError(f"{file}: {error}") from error
