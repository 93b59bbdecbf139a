"""`precompute` by tasks on a Ray cluster."""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING

from cskd_pipeline.errors import UsageError
from cskd_pipeline.progress import Watch
from cskd_pipeline.runs.precompute import PrecomputeRequest, open_job

if TYPE_CHECKING:
    from cskd_pipeline.labelling.job import PrecomputeJob
    from cskd_pipeline.store import StoreWriter


def precompute_on_ray(request: PrecomputeRequest, watch: Watch) -> int:
    """Have tasks on a Ray cluster do what a request says; returns how many crops they labelled.

    Raises:
        UsageError: Ray is not installed, or the request makes no sense there.
        CskdError: as `precompute`.
    """
    from cskd_pipeline.storage import open_storage

    try:
        from cskd_pipeline.labelling.ray_engine import precompute_on_ray as run
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "ray":
            raise
        raise UsageError("--engine ray needs the package ray: pip install 'cskd-pipeline[ray]'") from error
    request = request.anywhere()
    run(
        functools.partial(_open, request),
        open_storage(request.out),
        [*request.seeds],
        actors=request.tasks,
        workers=request.workers,
        augment=request.augment == "workers",
        device=request.device,
        address=request.ray_address,
        report=watch,
    )
    return 0


def _open(request: PrecomputeRequest, device: str | None, report: Watch) -> tuple[PrecomputeJob, StoreWriter]:
    return open_job(dataclasses.replace(request, device=device), report)
