"""The label store: a zarr v3 group that holds a teacher's targets and describes what they belong to.

`docs/format.md` is normative. Only this package imports zarr, and it does not import torch. Whatever reads or writes a
store raises `RetryError` where its storage refuses or is out of reach.
"""

from cskd_pipeline.store.check import BadFile, begun_blocks, check_block, check_files, check_tree, rewrite_metadata
from cskd_pipeline.store.claims import (
    Claim,
    Claims,
    LostClaimError,
    list_claims,
    list_writers,
    read_writer,
)
from cskd_pipeline.store.commit import Fidelity, mean_fidelity
from cskd_pipeline.store.header import StoreHeader, default_block
from cskd_pipeline.store.opening import is_store, recover_root, require_store_or_room
from cskd_pipeline.store.reader import StoreReader
from cskd_pipeline.store.summary import StoreSummary, summarise
from cskd_pipeline.store.teacher_check import TeacherCheck, read_teacher_check, write_teacher_check
from cskd_pipeline.store.writer import StoreWriter

__all__ = [
    "BadFile",
    "Claim",
    "Claims",
    "Fidelity",
    "LostClaimError",
    "StoreHeader",
    "StoreReader",
    "StoreSummary",
    "StoreWriter",
    "TeacherCheck",
    "begun_blocks",
    "check_block",
    "check_files",
    "check_tree",
    "default_block",
    "is_store",
    "list_claims",
    "list_writers",
    "mean_fidelity",
    "read_teacher_check",
    "read_writer",
    "recover_root",
    "require_store_or_room",
    "rewrite_metadata",
    "summarise",
    "write_teacher_check",
]
