"""Stage 1: run the teacher over augmented crops, once, and store its labels."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from cskd_pipeline.errors import UsageError
from cskd_pipeline.labels.choice import make_encodings, stored_settings, target_settings
from cskd_pipeline.progress import Progress, Watch, silent
from cskd_pipeline.runs.data import CROP_PCT, open_data
from cskd_pipeline.runs.imports import import_modules
from cskd_pipeline.runs.settings import (
    DATA_HELP,
    DEFAULT_TARGETS,
    AugmentSettings,
    CropSettings,
    DataSettings,
    TargetSettings,
    TeacherSettings,
)
from cskd_pipeline.runtime.allocator import keep_freed_memory
from cskd_pipeline.settings import Seeds, setting
from cskd_pipeline.wording import size

if TYPE_CHECKING:
    from cskd_pipeline.labelling.job import PrecomputeJob
    from cskd_pipeline.labelling.ray_tasks import Share
    from cskd_pipeline.storage import Storage
    from cskd_pipeline.store import StoreReader, StoreWriter, TeacherCheck


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabellingSettings(DataSettings, TeacherSettings, CropSettings, AugmentSettings, TargetSettings):
    """What to label, and with which teacher."""

    data: str = setting("imagenet-1k", DATA_HELP, group="data", metavar="DATA")
    split: str = setting("train", "Split to label.", group="data", metavar="NAME")
    seeds: Seeds = setting(
        (0,),
        "Augmentation seeds, each one view of every image: 7, 0:30 (30 not included) or 0:10,20.",
        group="labels",
        metavar="LIST",
        shown="0",
    )
    block: int | None = setting(
        None, "Samples per committed block.", group="labels", shown="chosen to suit the set", low=2
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.crop_recipe()
        target_settings(self.targets or DEFAULT_TARGETS, self.target_args.items())
        if not self.seeds:
            raise UsageError("--seeds names no seed; give at least one")


@dataclasses.dataclass(frozen=True, kw_only=True)
class PrecomputeRequest(LabellingSettings):
    """What to label, with which teacher, and where the labels go."""

    noun: ClassVar[str] = "precompute"

    out: str = setting(
        help="The label store: a new folder or s3://bucket/path, or a store to add to.", group="labels", metavar="STORE"
    )
    rank: int | None = setting(None, "Number of this process, from 0.", group="machine", shown="the launcher's")
    world_size: int | None = setting(
        None, "Number of processes that share the work.", group="machine", shown="the launcher's"
    )
    teacher_check: bool = setting(
        True,
        "Before anything is stored, see how right the teacher is on up to 2,000 of the images, for 40 seconds at most.",
        group="teacher",
        off=True,
    )
    engine: Literal["process", "ray"] = setting(
        "process",
        "Who does the work: this process, or tasks on a Ray cluster, which this process starts and watches.",
        group="machine",
    )
    tasks: int | None = setting(
        None,
        "With --engine ray: tasks to start, each with a GPU if the cluster has any.",
        group="machine",
        metavar="NUMBER",
        shown="one for each GPU, or one",
        low=1,
    )
    ray_address: str | None = setting(
        None,
        "With --engine ray: the cluster, as HOST:PORT, or auto for the one that this machine belongs to.",
        group="machine",
        metavar="ADDRESS",
        shown="$RAY_ADDRESS, or a Ray on this machine for this run alone",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.engine == "ray" and (self.rank is not None or self.world_size is not None):
            raise UsageError("--rank and --world-size number processes, which Ray does by itself; leave them out")
        if self.engine != "ray" and (self.tasks is not None or self.ray_address is not None):
            option = "--tasks" if self.tasks is not None else "--ray-address"
            raise UsageError(f"{option} is given without --engine ray, where it has no effect: give both, or neither")

    def anywhere(self) -> Self:
        """The same request for a process that has another current folder and other variables."""
        from cskd_pipeline.data import ROOT_VARIABLE, is_index, is_pattern, manifest_names
        from cskd_pipeline.models.hub_model import is_hub_name
        from cskd_pipeline.storage import is_address

        def whole(path: str) -> str:
            return path if is_address(path) else str(Path(path).expanduser().absolute())

        is_name = self.data in manifest_names() and not is_index(self.data)
        is_path = "/" in self.data or Path(self.data).exists() or is_pattern(self.data)
        root = self.data_root or os.environ.get(ROOT_VARIABLE)
        weights, teacher = self.teacher_weights, self.teacher
        if teacher and teacher.startswith("local-dir:"):
            teacher = f"local-dir:{whole(teacher.removeprefix('local-dir:'))}"
        return dataclasses.replace(
            self,
            data=whole(self.data) if is_path and not is_name else self.data,
            data_root=whole(root) if root else None,
            out=whole(self.out),
            imports=tuple(whole(name) if name.endswith(".py") else name for name in self.imports),
            teacher=teacher,
            teacher_weights=Path(whole(str(weights))) if weights and not is_hub_name(str(weights)) else weights,
        )


@dataclasses.dataclass(frozen=True, slots=True)
class Precomputed:
    """What a call of `precompute` did.

    Attributes:
        store: the store's path or URL, as it was given.
        crops: how many crops this process labelled. The seeds asked for are complete, by whichever process.
        rank: number of this process among those that shared the work.
    """

    store: str
    crops: int
    rank: int


def precompute(
    request: PrecomputeRequest | None = None, /, *, progress: Watch = silent, **settings: Any
) -> Precomputed:
    """Store a teacher's labels of augmented crops; returns when all seeds asked for are complete.

    The same call continues after an interruption, and with other seeds adds to the store. Any number of processes
    may make it at once, on one machine or many: each block is claimed by one of them.

    Takes a `PrecomputeRequest`, or its settings by name.

    Raises:
        UsageError: the request makes no sense.
        DataError: images, weights or labels are missing, damaged or cannot be stored.
        MismatchError: the store was made with other settings, or the teacher's classes are in another order.
        StoppedError: interrupted; committed blocks are kept.
        RetryError: storage is full, read-only or out of reach, or a worker was killed.
    """
    request = PrecomputeRequest.given(request, settings)
    keep_freed_memory()
    import_modules(request.imports)
    from cskd_pipeline.storage import open_storage
    from cskd_pipeline.store import require_store_or_room

    require_store_or_room(open_storage(request.out))
    request.require_teacher()
    if request.engine == "ray":
        _on_ray(request, progress)
        return Precomputed(request.out, 0, 0)
    from cskd_pipeline.labelling.gap import warn_of_gap
    from cskd_pipeline.labelling.job import precompute as run
    from cskd_pipeline.runtime.launcher import launched_rank
    from cskd_pipeline.runtime.processors import worker_count

    place = launched_rank(request.rank, request.world_size, os.environ)
    job, writer = open_job(request, progress)
    if place.rank == 0:
        warn_of_gap(job, seed=request.seeds[0], report=progress)
    made = run(
        job,
        writer,
        [*request.seeds],
        workers=worker_count(request.workers),
        augment=request.augment == "workers",
        rank=place.rank,
        world=place.world,
        watch=progress,
    )
    return Precomputed(request.out, made, place.rank)


def open_job(request: PrecomputeRequest, watch: Watch) -> tuple[PrecomputeJob, StoreWriter]:
    """The job that a request describes, and its store, created or opened; errors as `precompute`."""
    from cskd_pipeline.storage import open_storage
    from cskd_pipeline.store import StoreReader, StoreWriter, is_store, read_teacher_check, write_teacher_check

    storage = open_storage(request.out)
    present = StoreReader(storage) if is_store(storage) else None  # more seeds for a store, which is what it is
    job = make_job(request, present, watch)
    if (warning := room_for(job, request.seeds, storage, present)) is not None:
        watch(f"warning: {warning}")
    writer = None if present is None else StoreWriter(storage, job.header)  # refuses other settings at once
    check = None
    if request.teacher_check and (present is None or read_teacher_check(storage) is None):
        check = _checked(request, job, watch)
    writer = writer or StoreWriter(storage, job.header)
    if check is not None:
        write_teacher_check(storage, check)
    return job, writer


def make_job(request: LabellingSettings, present: StoreReader | None, watch: Watch) -> PrecomputeJob:
    """The job that a request describes, in the form that a store has, if one is there; errors as `precompute`."""
    from cskd_pipeline.labelling.calibration import with_channels
    from cskd_pipeline.labelling.job import PrecomputeJob
    from cskd_pipeline.runtime.device import choose_device

    device = choose_device(request.device)
    block = request.block
    if block is None and present is not None:
        block = present.header.block
    stored = target_settings(request.targets or DEFAULT_TARGETS, request.target_args.items())
    if request.targets is None and not request.target_args and present is not None:
        stored = stored_settings(present.header.encodings)
    index = open_data(request.data, split=request.split, root=request.data_root, watch=watch)
    classes, recipe = len(index.classes), request.crop_recipe()
    teacher = request.load_teacher(index, size=recipe.size, device=device, watch=watch)
    known = present.header.encodings if present is not None else {}
    stored = with_channels(stored, known, index=index, recipe=recipe, teacher=teacher)
    encodings = make_encodings(stored, positions=teacher.positions, classes=classes)
    job = PrecomputeJob(index, recipe, teacher, encodings, block)
    watch(
        f"{index.name} {index.split}: {len(index):,} images, {classes} classes; teacher "
        f"{teacher.spec.model} ({teacher.spec.weights[:12]}) on {device}, grid {teacher.grid[0]} x {teacher.grid[1]}"
        + (" (global labels alone: it has no map of positions)" if teacher.positions == 1 else "")
    )
    return job


def room_for(
    job: PrecomputeJob,
    seeds: Seeds,
    storage: Storage,
    present: StoreReader | None,
    *,
    bytes_per_crop: float | None = None,
) -> str | None:
    """A line that says that the labels of these seeds will not fit where they go; None where they do, or none can tell.

    Args:
        job: what is stored.
        seeds: all that are asked for; blocks that are there need no room.
        storage: the place.
        present: the store, if there is one.
        bytes_per_crop: where that is known; None takes that of the store, or else as much as rows can take.
    """
    from cskd_pipeline.store import summarise
    from cskd_pipeline.store.layout import CROP_CRC

    free, asked = storage.free_bytes(), len(seeds) * len(job.index)
    most = sum(encoding.field.row_bytes for encoding in job.encodings.values()) + CROP_CRC.row_bytes
    if free is None or asked * (bytes_per_crop or most) <= free:
        return None
    found = None if present is None else summarise(present)
    made = sum(seed.crops for seed in found.seeds if seed.seed in seeds) if found is not None else 0
    if bytes_per_crop is None and found is not None and found.crops:
        bytes_per_crop = found.bytes_per_crop["total"]
    about, needed = "about" if bytes_per_crop else "up to", (asked - made) * (bytes_per_crop or most)
    if needed <= free:
        return None
    return (
        f"the labels need {about} {size(needed)} more, and {storage.address} has {size(free)} free: the "
        "run will stop when that is full, and go on when there is room. Give fewer --seeds, or leave --targets out"
    )


def _checked(request: PrecomputeRequest, job: PrecomputeJob, watch: Watch) -> TeacherCheck:
    """What the teacher knows about the images, said."""
    from cskd_pipeline.labelling.teacher_check import check_teacher
    from cskd_pipeline.runtime.processors import worker_count

    check = check_teacher(
        job,
        seed=request.seeds[0],
        crop_pct=CROP_PCT,
        workers=worker_count(request.workers),
        reordered=request.teacher_classes is not None,
    )
    watch(f"teacher {check}")
    for warning in check.warnings:
        watch(f"warning: {warning}")
    return check


def _on_ray(request: PrecomputeRequest, watch: Watch) -> None:
    """Have tasks on a Ray cluster do what a request says."""
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
