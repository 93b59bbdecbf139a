"""Copy a data set, in whatever form it is, to tar shards."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, ClassVar

from cskd_pipeline.progress import Watch, silent
from cskd_pipeline.runs.data import counting, open_data
from cskd_pipeline.runs.settings import DATA_HELP, DataSettings
from cskd_pipeline.settings import setting


@dataclasses.dataclass(frozen=True, kw_only=True)
class PackRequest(DataSettings):
    """Which images to copy, and where to."""

    noun: ClassVar[str] = "pack"

    data: str = setting(
        help=f"{DATA_HELP} Here also parquet files as the Hugging Face hub has them: a folder, a pattern or a file.",
        group="data",
        metavar="DATA",
    )
    split: tuple[str, ...] = setting(
        (), "Split to copy; may be repeated.", group="data", metavar="NAME", shown="all that there are"
    )
    image_column: str | None = setting(
        None, "Column of parquet files that holds the images.", group="data", metavar="NAME", shown="found"
    )
    label_column: str | None = setting(
        None, "Column of parquet files that holds the labels.", group="data", metavar="NAME", shown="found"
    )
    out: Path = setting(help="Where to put the shards.", group="output", metavar="FOLDER")


@dataclasses.dataclass(frozen=True, slots=True)
class Packed:
    """A copy of a data set.

    Attributes:
        folder: where it is; `--data` takes it.
        shards: the files of each split.
        images: how many images each split has.
        classes: their names, by label.
    """

    folder: Path
    shards: dict[str, list[Path]]
    images: dict[str, int]
    classes: tuple[str, ...]


def pack(request: PackRequest | None = None, /, *, progress: Watch = silent, **settings: Any) -> Packed:
    """Copy splits to tar shards `SPLIT-000000.tar`, ... beside `classes.txt`; the images' bytes stay as they are.

    Keys, labels and digest of a data set that the other verbs read stay the same, and its shards are in its canonical
    order; images of parquet files are in the order of the rows.

    Takes a `PackRequest`, or its settings by name.

    Raises:
        UsageError: nothing is called so, it has no such split, or the folder holds it already.
        DataError: images or labels are missing or broken.
        RetryError: storage is full, read-only or out of reach.
    """
    request = PackRequest.given(request, settings)
    from cskd_pipeline.data import is_index, is_parquet, open_index, resolve_data
    from cskd_pipeline.data import pack as pack_split
    from cskd_pipeline.data.class_list import ClassList
    from cskd_pipeline.data.pack import require_room

    if is_parquet(request.data):
        return _pack_parquet(request, watch=progress)
    if is_index(request.data):
        splits = request.split or (open_index(Path(request.data)).split,)
    else:
        splits = request.split or resolve_data(request.data, root=request.data_root).splits
    watches = [progress, *[_without_lines(progress)] * (len(splits) - 1)]  # what is said of the classes is said once
    indices = [
        open_data(request.data, split=split, root=request.data_root, watch=watch)
        for split, watch in zip(splits, watches, strict=True)
    ]
    for index in indices:
        require_room(request.out, split=index.split, classes=ClassList(tuple((name,) for name in index.classes)))
    shards = {
        index.split: pack_split(index, request.out, progress=counting(f"pack {index.split}", progress))
        for index in indices
    }
    return Packed(request.out, shards, {index.split: len(index) for index in indices}, indices[0].classes)


def _pack_parquet(request: PackRequest, *, watch: Watch) -> Packed:
    from cskd_pipeline.data.parquet import open_parquet

    data = open_parquet(request.data, image=request.image_column, label=request.label_column)
    splits = request.split or tuple(data.files)
    data.require(splits, request.out)
    if data.left_out:
        watch(f"left out, being of no split: {', '.join(data.left_out)}")
    keys = "numbers of rows" if data.key is None else f"from column {data.key}"
    watch(f"images from column {data.image}, labels from {data.label}, keys {keys}; classes: {data.classes.where}")
    shards = {split: data.pack(split, request.out, progress=counting(f"pack {split}", watch)) for split in splits}
    return Packed(request.out, shards, {split: data.rows(split) for split in splits}, data.classes.names)


def _without_lines(watch: Watch) -> Watch:
    return lambda event: None if isinstance(event, str) else watch(event)
