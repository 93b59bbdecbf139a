"""`precompute --engine ray`: the options, and the call."""

from __future__ import annotations

import functools

import click

from cskd_pipeline.errors import UsageError

from .options import options, say
from .precompute_job import PrecomputeSettings, open_job

engine_options = options(
    click.option(
        "--engine",
        type=click.Choice(["process", "ray"]),
        default="process",
        show_default=True,
        help="Who does the work: this process, or actors of a Ray cluster, which this process starts and watches.",
    ),
    click.option(
        "--actors",
        metavar="NUMBER",
        default="auto",
        show_default=True,
        help="With --engine ray: actors to ask for, each with a GPU if there are any. They begin as the cluster has "
        "room. auto: as many as it has GPUs now, or one.",
    ),
    click.option(
        "--ray-address",
        metavar="ADDRESS",
        help="With --engine ray: the cluster, as HOST:PORT, or auto for the one that this machine belongs to.  "
        "[default: $RAY_ADDRESS, or a Ray on this machine for this run alone]",
    ),
)


def actor_count(text: str) -> int | None:
    """The number of `--actors`; None for "auto".

    Raises:
        UsageError: it is neither.
    """
    if text == "auto":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise UsageError(f"--actors must be a number from 1 on, or auto, found {text!r}")
    return int(text)


def run_on_ray(
    settings: PrecomputeSettings,
    seeds: list[int],
    *,
    actors: int | None,
    workers: int | None,
    augment: bool,
    device: str | None,
    address: str | None,
) -> None:
    """Have actors of a Ray cluster do what `settings` say; arguments and errors as of `precompute_on_ray`.

    Raises:
        UsageError: Ray is not installed, or the settings make no sense.
    """
    from cskd_pipeline.storage import open_storage

    try:
        from cskd_pipeline.labelling.ray_engine import precompute_on_ray
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "ray":
            raise
        raise UsageError("--engine ray needs the package ray: pip install 'cskd-pipeline[ray]'") from error

    settings.check()
    settings = settings.anywhere()
    precompute_on_ray(
        functools.partial(open_job, settings),
        open_storage(settings.out),
        seeds,
        actors=actors,
        workers=workers,
        augment=augment,
        device=device,
        address=address,
        report=say,
    )
