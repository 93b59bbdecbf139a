"""What a walk over a copy of a data set finds, before anything is ordered or measured."""

from __future__ import annotations

import dataclasses

from cskd_pipeline.data.places import Place

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")


@dataclasses.dataclass(slots=True)
class Listing:
    """The samples of one split in the order they were found; the lists of samples have one length.

    Attributes:
        classes: class names in label order.
        files: names of the data files, relative to the data set's root (or absolute where they lie elsewhere).
        keys, labels: one a sample.
        file_ids: position of the sample's file in `files`.
        offsets, lengths: where its image lies in the file, in bytes.
        sizes: (height, width) of its image, or None where that is not known yet.
    """

    classes: tuple[str, ...]
    files: list[str] = dataclasses.field(default_factory=list)
    keys: list[str] = dataclasses.field(default_factory=list)
    labels: list[int] = dataclasses.field(default_factory=list)
    file_ids: list[int] = dataclasses.field(default_factory=list)
    offsets: list[int] = dataclasses.field(default_factory=list)
    lengths: list[int] = dataclasses.field(default_factory=list)
    sizes: list[tuple[int, int] | None] = dataclasses.field(default_factory=list)

    def add_file(self, name: str) -> int:
        """Registers a data file and returns its id."""
        self.files.append(name)
        return len(self.files) - 1

    def place(self, row: int) -> Place:
        """Where a sample's image lies."""
        return Place(self.files[self.file_ids[row]], self.offsets[row], self.lengths[row])

    def add(
        self, key: str, *, label: int, file_id: int, offset: int, length: int, size: tuple[int, int] | None = None
    ) -> None:
        """Appends one sample."""
        self.keys.append(key)
        self.labels.append(label)
        self.file_ids.append(file_id)
        self.offsets.append(offset)
        self.lengths.append(length)
        self.sizes.append(size)
