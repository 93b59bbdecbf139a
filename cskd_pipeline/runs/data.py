"""The images of a request: opened by name or place, or found by the digest that labels or a run belong to."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cskd_pipeline.errors import DataError
from cskd_pipeline.progress import Progress, Watch

if TYPE_CHECKING:
    from cskd_pipeline.data import SampleIndex


def open_data(data: str, *, split: str, root: str | None, watch: Watch) -> SampleIndex:
    """The index of a split, built where there is none yet.

    Args:
        data: a name, a place or an index, as `--data` takes it.
        split: its name; an index has only one, which must be this.
        root: where a known data set lies; None for $CSKD_DATA_ROOT.
        watch: told how far the indexing is.

    Raises:
        UsageError, DataError, RetryError: as `data.open_split`.
    """
    from cskd_pipeline.data import open_split

    def progress(done: int, total: int) -> None:
        watch(Progress(f"index {split}", done, total, "image"))

    return open_split(data, split, root=root, progress=progress)


def find_data(about: Mapping[str, Any], *, root: str | None, watch: Watch) -> SampleIndex:
    """The images with the digest that labels or a run name, wherever they lie.

    Args:
        about: name, split and digest of the images.
        root: where a known data set lies; None for $CSKD_DATA_ROOT.
        watch: told how far the indexing is.

    Raises:
        DataError: they are not found; says where was looked.
        RetryError: storage is out of reach.
    """
    raise DataError(f"give --data, the images of {about['name']}")


def is_index(data: str) -> bool:
    """Whether this is the folder of an index, which knows one split."""
    from cskd_pipeline.data.index_files import HEADER_NAME

    return (Path(data) / HEADER_NAME).is_file()


def split_to_score(data: str, root: str | None) -> str | None:
    """The split of a data set that scores are taken on: val, else test, else None. An index has no other split."""
    from cskd_pipeline.data import evaluation_split, resolve_data

    return None if is_index(data) else evaluation_split(resolve_data(data, root=root))
