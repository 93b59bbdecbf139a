"""What the classes of an index are called, besides their names."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from cskd_pipeline.data.class_list import CLASSES_NAME, ClassList
from cskd_pipeline.data.manifest import Manifest
from cskd_pipeline.data.sample_index import SampleIndex, read_header
from cskd_pipeline.data.shards import class_list
from cskd_pipeline.errors import CskdError
from cskd_pipeline.storage import StoredFile


def class_forms(index: SampleIndex) -> tuple[tuple[str, ...], ...]:
    """By label the class's name, and what else the manifest or the `classes.txt` beside the data calls it."""
    forms = {name: [name] for name in index.classes}
    for listed in _lists(index):
        rows = [(name, *row) for name, row in zip(listed.names, listed.rows, strict=True)]
        if len(rows) == len(forms) and all(name in row for name, row in zip(forms, rows, strict=True)):
            for form, row in zip(forms.values(), rows, strict=True):
                form += [entry for entry in dict.fromkeys(row) if entry and entry not in form]
    return tuple(map(tuple, forms.values()))


def _lists(index: SampleIndex) -> Iterator[ClassList]:
    """The class lists that there are; those that cannot be read are none, for the index has the names."""
    with contextlib.suppress(CskdError, OSError):
        manifest = read_header(index.folder).get("manifest")
        if manifest is not None:
            yield Manifest.from_json(manifest).class_list
    with contextlib.suppress(CskdError, OSError):
        if index.layout == "tar":
            yield class_list(index.root, StoredFile(index.files[0].decode(), 0))
        elif (size := index.root.size(CLASSES_NAME)) is not None:
            content = index.root.read(CLASSES_NAME, limit=size)
            yield ClassList.parse(content, where=index.root.at(CLASSES_NAME))
