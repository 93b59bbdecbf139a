"""Fix a data set's canonical order, check its images, or copy them in that order."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from cskd_pipeline.progress import Watch, silent
from cskd_pipeline.runs.data import counting
from cskd_pipeline.runs.settings import DATA_HELP, DataSettings
from cskd_pipeline.settings import setting

if TYPE_CHECKING:
    from cskd_pipeline.data import SampleIndex


@dataclasses.dataclass(frozen=True, kw_only=True)
class IndexRequest(DataSettings):
    """Which images to list, and what to do with the list."""

    noun: ClassVar[str] = "index"

    data: str = setting(help=DATA_HELP, group="data", metavar="DATA")
    split: str = setting("train", "Split to index.", group="data", metavar="NAME")
    check: bool = setting(False, "Decode every image and list all broken ones.", group="data")
    out: Path | None = setting(None, "Where to put the index.", group="output", metavar="FOLDER", shown="the cache")
    pack: Path | None = setting(
        None,
        "Copy the images to tar shards in canonical order, for slow or remote storage and train --shuffle blocks.",
        group="output",
        metavar="FOLDER",
    )


def index(request: IndexRequest | None = None, /, *, progress: Watch = silent, **settings: Any) -> SampleIndex:
    """The index of a split: key, label and place of every image in canonical order, and the digest of these.

    Takes an `IndexRequest`, or its settings by name. With `check`, `progress` is told of each broken image.

    Raises:
        UsageError: nothing is called so, or it has no such split.
        DataError: images are missing or broken.
        RetryError: storage is full, read-only or out of reach.
    """
    request = IndexRequest.given(request, settings)
    from cskd_pipeline.data import build_index, pack, remarks, resolve_data

    source = resolve_data(request.data, root=request.data_root)
    built = build_index(
        source,
        request.split,
        out=request.out,
        check=request.check,
        progress=counting(f"index {request.split}", progress),
        report_broken=(lambda line: progress(f"broken: {line}")) if request.check else None,
    )
    for line in remarks(source, built):
        progress(line)
    if request.pack is not None:
        pack(built, request.pack, progress=counting(f"pack {request.split}", progress))
    return built
