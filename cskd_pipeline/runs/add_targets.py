"""Label the seeds of a store again for targets that it lacks, in a store beside it."""

from __future__ import annotations

import dataclasses
import os
from typing import Any, ClassVar

from cskd_pipeline.errors import UsageError
from cskd_pipeline.labels.choice import make_encodings, target_settings
from cskd_pipeline.progress import Watch, silent
from cskd_pipeline.runs.imports import import_modules
from cskd_pipeline.runs.precompute import Precomputed
from cskd_pipeline.runs.settings import TARGETS_HELP, TargetSettings
from cskd_pipeline.runs.source import SourceSettings, store_job
from cskd_pipeline.runtime.allocator import keep_freed_memory
from cskd_pipeline.settings import Seeds, setting


@dataclasses.dataclass(frozen=True, kw_only=True)
class AddTargetsRequest(SourceSettings, TargetSettings):
    """What a store lacks, and where it goes."""

    noun: ClassVar[str] = "add-targets"

    targets: str = setting(help=TARGETS_HELP, group="labels", metavar="LIST")
    seeds: Seeds | None = setting(
        None,
        "Augmentation seeds: 7, 0:30 (30 not included) or 0:10,20.",
        group="labels",
        metavar="LIST",
        shown="all complete ones of STORE",
    )
    out: str = setting(
        help="The store for them: a new folder or s3://bucket/path, or one to add to.", group="output", metavar="STORE"
    )


def add_targets(
    store: str, request: AddTargetsRequest | None = None, /, *, progress: Watch = silent, **settings: Any
) -> Precomputed:
    """Store further targets of the crops of a store, by the teacher that made it, in a store of their own.

    What `store` holds is not touched. `train` takes both stores (`--labels STORE --labels OUT`). Takes an
    `AddTargetsRequest`, or its settings by name. The same call continues after an interruption, and any number of
    processes may make it at once.

    Raises:
        UsageError: the request makes no sense.
        DataError: there is no store, what it was made of is not found, or labels cannot be stored.
        MismatchError: data or weights are not those that the store was made of, or `out` was made with other settings.
        StoppedError, RetryError: as `precompute`.
    """
    request = AddTargetsRequest.given(request, settings)
    keep_freed_memory()
    import_modules(request.imports)
    from cskd_pipeline.labelling.calibration import with_channels
    from cskd_pipeline.labelling.job import precompute as run
    from cskd_pipeline.runtime.launcher import launched_rank
    from cskd_pipeline.runtime.processors import worker_count
    from cskd_pipeline.storage import open_storage
    from cskd_pipeline.store import StoreReader, StoreWriter, is_store, require_store_or_room

    chosen = target_settings(request.targets, request.target_args.items())
    reader, target = StoreReader(store), open_storage(request.out)
    if target.address == reader.path:
        raise UsageError(f"--out {request.out} is the store itself; give another folder for what it lacks")
    require_store_or_room(target)
    seeds = [*(request.seeds or reader.complete_seeds())]
    for seed in seeds or [0]:
        reader.complete_commits(seed, use="add to")
    job = store_job(reader, request, watch=progress)
    begun = StoreReader(target).header.encodings if is_store(target) else {}
    chosen = with_channels(chosen, begun, index=job.index, recipe=job.recipe, teacher=job.teacher)
    encodings = make_encodings(chosen, positions=job.teacher.positions, classes=reader.header.data["classes"])
    job = dataclasses.replace(job, encodings=encodings)
    place = launched_rank(None, None, os.environ)
    made = run(
        job,
        StoreWriter(target, job.header),
        seeds,
        workers=worker_count(request.workers),
        rank=place.rank,
        world=place.world,
        watch=progress,
    )
    return Precomputed(request.out, made, place.rank)
