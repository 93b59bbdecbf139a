"""Make what is bad in a label store again, and nothing else."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, ClassVar

from cskd_pipeline.progress import Watch, silent
from cskd_pipeline.runs.imports import import_modules
from cskd_pipeline.runs.settings import require_weights
from cskd_pipeline.runs.source import SourceSettings, store_job
from cskd_pipeline.runtime.allocator import keep_freed_memory

if TYPE_CHECKING:
    from cskd_pipeline.labelling.repair import Repaired


@dataclasses.dataclass(frozen=True, kw_only=True)
class RepairRequest(SourceSettings):
    """What to mend a store from."""

    noun: ClassVar[str] = "repair"


def repair(
    store: str, request: RepairRequest | None = None, /, *, progress: Watch = silent, **settings: Any
) -> Repaired:
    """Write damaged attributes again, and recompute exactly the bad blocks of a store.

    Takes a `RepairRequest`, or its settings by name. Data and weights are only needed, and looked for, where blocks are
    bad.

    Raises:
        DataError: there is no store, what it was made of is not found, or the repair did not help.
        MismatchError: data or weights are not those that the store was made of.
        StoppedError, RetryError: as `precompute`.
    """
    request = RepairRequest.given(request, settings)
    keep_freed_memory()
    import_modules(request.imports)
    from cskd_pipeline.labelling.repair import repair as run
    from cskd_pipeline.runtime.processors import worker_count
    from cskd_pipeline.storage import open_storage

    require_weights("--teacher-weights", request.teacher_weights)
    return run(
        open_storage(store),
        lambda reader: store_job(reader, request, watch=progress),
        workers=worker_count(request.workers),
        watch=progress,
    )
