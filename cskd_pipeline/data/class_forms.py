"""What the classes of an index are called, besides their names."""

from __future__ import annotations

from cskd_pipeline.data.manifest import parse_class_list
from cskd_pipeline.data.sample_index import SampleIndex
from cskd_pipeline.data.shards import class_list_beside, open_file
from cskd_pipeline.errors import CskdError
from cskd_pipeline.storage.storage import StoredFile


def class_forms(index: SampleIndex) -> tuple[tuple[str, ...], ...]:
    """By label the class's name, and what the further columns of the `classes.txt` beside the shards say of it."""
    names = tuple((name,) for name in index.classes)
    if index.layout == "folder":
        return names
    try:
        file = class_list_beside(index.root, StoredFile(index.files[0].decode(), 0))
        if file is None:
            return names
        with open_file(index.root, file) as stream:
            text = stream.read().decode("utf-8-sig")
    except (CskdError, OSError, UnicodeDecodeError):  # the index has the names, which is what counts
        return names
    if parse_class_list(text) != index.classes:
        return names
    return tuple(
        (name, *(part.strip() for part in line.split("\t")[1:] if part.strip()))
        for name, line in zip(index.classes, text.splitlines(), strict=False)
    )
