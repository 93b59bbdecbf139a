"""The label store: a zarr v3 group that holds a teacher's targets and says what they belong to.

`docs/format.md` is the normative description. This package is the project's only door to zarr and knows no torch.
"""

from cskd_pipeline.store.check import BadFile, check_files
from cskd_pipeline.store.commit import Fidelity, mean_fidelity
from cskd_pipeline.store.header import StoreHeader, default_block
from cskd_pipeline.store.opening import is_store, require_store_or_room
from cskd_pipeline.store.reader import StoreReader
from cskd_pipeline.store.summary import StoreSummary, summarise
from cskd_pipeline.store.writer import StoreWriter

__all__ = [
    "BadFile",
    "Fidelity",
    "StoreHeader",
    "StoreReader",
    "StoreSummary",
    "StoreWriter",
    "check_files",
    "default_block",
    "is_store",
    "mean_fidelity",
    "require_store_or_room",
    "summarise",
]
