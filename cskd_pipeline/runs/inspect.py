"""What a label store holds, how far it is, and who works on it; without loading torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import os

    from cskd_pipeline.store import StoreSummary
    from cskd_pipeline.store.progress import StoreProgress


def inspect(store: str | os.PathLike[str]) -> StoreSummary:
    """Data, recipe, teacher, targets, seeds, sizes and fidelity of a store, from its attributes and commit files.

    Raises:
        DataError: there is no store.
        MismatchError: it is of a newer format.
        RetryError: storage is out of reach.
    """
    from cskd_pipeline.store import StoreReader, summarise

    return summarise(StoreReader(str(store)))


def status(store: str | os.PathLike[str]) -> StoreProgress:
    """Seeds, blocks, writers, rate and time left of a store; lists files and reads none of the labels.

    Raises:
        DataError: there is no store.
        RetryError: storage is out of reach.
    """
    from cskd_pipeline.store import StoreReader
    from cskd_pipeline.store.progress import progress_of

    return progress_of(StoreReader(str(store)))
