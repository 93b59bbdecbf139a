"""What a label store holds, without loading torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import os

    from cskd_pipeline.store import StoreSummary


def inspect(store: str | os.PathLike[str]) -> StoreSummary:
    """Data, recipe, teacher, targets, seeds, sizes and fidelity of a store, from its attributes and commit files.

    Args:
        store: a path or URL.

    Raises:
        DataError: there is no store.
        MismatchError: it is of a newer format.
        RetryError: storage is out of reach.
    """
    from cskd_pipeline.store import StoreReader, summarise

    return summarise(StoreReader(str(store)))
