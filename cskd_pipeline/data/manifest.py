"""What a data set is: its classes, its splits, and how many images each should hold."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Self

from cskd_pipeline.errors import UsageError, nearest
from cskd_pipeline.record import Record

SOURCES = ("folder", "tar", "generated")


@dataclasses.dataclass(frozen=True, slots=True)
class Split(Record):
    """Where one split of a data set lies, and what it must amount to.

    Attributes:
        source: "folder" (class folders of images), "tar" (WebDataset shards) or "generated" (drawn).
        path: relative to the data set's root: the folder of class folders, or the pattern of the shards
            (glob and braces). Unused where the images are generated.
        count: the number of images, or None where it is not known beforehand.
        index_digest: the digest that the split's index must have, or None where any will do.
    """

    source: str
    path: str = "."
    count: int | None = None
    index_digest: str | None = None

    def __post_init__(self) -> None:
        if self.source not in SOURCES:
            raise UsageError(
                f"a split's source is {self.source!r}{nearest(str(self.source), list(SOURCES))}; "
                f"known: {', '.join(SOURCES)}"
            )
        if not isinstance(self.path, str):
            raise UsageError(f"a split's path must be text, found {self.path!r}")
        if self.count is not None and (type(self.count) is not int or self.count < 1):
            raise UsageError(f"a split's count must be a whole number of at least 1, found {self.count!r}")
        if self.index_digest is not None and not isinstance(self.index_digest, str):
            raise UsageError(f"a split's index_digest must be text (quote it), found {self.index_digest!r}")


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
    """

    name: str
    description: str = ""
    classes: tuple[str, ...] = ()
    splits: Mapping[str, Split] = dataclasses.field(default_factory=dict)
    homepage: str = ""
    notes: str = ""

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
