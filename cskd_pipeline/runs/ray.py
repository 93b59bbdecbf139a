"""`precompute` by tasks on a Ray cluster."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import TYPE_CHECKING

from cskd_pipeline.errors import UsageError
from cskd_pipeline.progress import Progress, Watch
from cskd_pipeline.runs.precompute import PrecomputeRequest, precompute

if TYPE_CHECKING:
    from cskd_pipeline.labelling.ray_tasks import Share


def precompute_on_ray(request: PrecomputeRequest, watch: Watch) -> None:
    """Have tasks on a Ray cluster do what a request says.

    Raises:
        UsageError: Ray is not installed, or the request makes no sense there.
        CskdError: as `precompute`.
    """
    from cskd_pipeline.storage import open_storage

    try:
        from cskd_pipeline.labelling.ray_tasks import run_on_ray
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "ray":
            raise
        raise UsageError("--engine ray needs the package ray: pip install 'cskd-pipeline[ray]'") from error
    request = request.anywhere()
    run_on_ray(
        functools.partial(_share, request),
        open_storage(request.out),
        tasks=request.tasks,
        workers=request.workers,
        device=request.device,
        address=request.ray_address,
        report=watch,
    )


def _share(request: PrecomputeRequest, share: Share, report: Callable[[str], None]) -> None:
    """What one of several processes without Ray does."""

    def watch(event: Progress | str) -> None:
        line = event if isinstance(event, str) else event.note
        if line:
            report(line)

    alone = dataclasses.replace(
        request,
        engine="process",
        tasks=None,
        ray_address=None,
        rank=share.rank,
        world_size=share.world,
        device=share.device,
        workers=share.workers,
    )
    precompute(alone, progress=watch)
