"""How far a label store is, and who is working on it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import os

    from cskd_pipeline.store.progress import StoreProgress


def status(store: str | os.PathLike[str]) -> StoreProgress:
    """Seeds, blocks, writers, rate and time left of a store; lists files and reads none of the labels.

    Args:
        store: a path or URL.

    Raises:
        DataError: there is no store.
        RetryError: storage is out of reach.
    """
    from cskd_pipeline.store import StoreReader
    from cskd_pipeline.store.progress import progress_of

    return progress_of(StoreReader(str(store)))
