"""The images of a request: opened by name or place, or found by the digest that labels or a run belong to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from cskd_pipeline.progress import Progress, Watch

if TYPE_CHECKING:
    from cskd_pipeline.data import DataSource, SampleIndex


def open_data(data: str | DataSource, *, split: str, root: str | None, watch: Watch) -> SampleIndex:
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

    return open_split(data, split, root=root, progress=_progress(split, watch))


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
    from cskd_pipeline.data import find_split

    name, split, digest = (str(about[field]) for field in ("name", "split", "digest"))
    return find_split(digest=digest, name=name, split=split, root=root, progress=_progress(split, watch))


def split_to_score(data: str | DataSource, root: str | None) -> str | None:
    """The split of a data set that scores are taken on: val, else test, else None. An index has no other split."""
    from cskd_pipeline.data import evaluation_split, is_index, resolve_data

    if not isinstance(data, str):
        return evaluation_split(data)
    return None if is_index(data) else evaluation_split(resolve_data(data, root=root))


def _progress(split: str, watch: Watch) -> Callable[[int, int], None]:
    return lambda done, total: watch(Progress(f"index {split}", done, total, "image"))
