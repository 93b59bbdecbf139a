"""What labels will cost, before they are made: bytes, hours, memory and processors, measured on a few crops."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

from cskd_pipeline.progress import Watch, silent
from cskd_pipeline.runs.imports import import_modules
from cskd_pipeline.runs.precompute import LabellingSettings, make_job, room_for
from cskd_pipeline.runtime.allocator import keep_freed_memory
from cskd_pipeline.settings import setting

TABLES = 2
"""Seeds that training holds in memory: the one in use, and the next."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlanRequest(LabellingSettings):
    """What would be labelled, and what is asked about it."""

    noun: ClassVar[str] = "plan"

    out: str | None = setting(
        None, "Where the labels would go: is there room?", group="labels", metavar="STORE", shown="not looked at"
    )
    devices: int = setting(8, "Devices like this one that would share the work.", group="machine", low=1)
    epochs: int = setting(300, "Epochs of training that a live teacher is compared for.", group="schedule", low=1)
    seconds: float = setting(20.0, "How long to measure; longer is more exact.", group="machine", low=1)


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    """What labels of some seeds will cost.

    Attributes:
        data, split, teacher, device: of what.
        images, classes, seeds, crops: how many of each; crops is images times seeds.
        size: side of the crops in pixels.
        grid: (H, W).
        measured_crops: how many were labelled to measure.
        crops_s: crops a second through `precompute`, on this device.
        teacher_crops_s: crops a second that the teacher alone would do.
        core_crops_s: crops a second that one processor core makes.
        bytes_per_crop: stored bytes, by field.
        seconds: of `precompute` on this device.
        devices: how many would share the work.
        table_bytes: memory or disk that the labels of one seed take while a student trains on them, by target.
        epochs: of training, for `live_seconds`.
        live_seconds: that a live teacher would add to a run, on this device.
        warnings: what is in the way, a sentence each.
    """

    data: str
    split: str
    teacher: str
    device: str
    images: int
    classes: int
    seeds: int
    crops: int
    size: int
    grid: tuple[int, int]
    measured_crops: int
    crops_s: float
    teacher_crops_s: float
    core_crops_s: float
    bytes_per_crop: Mapping[str, float]
    seconds: float
    devices: int
    table_bytes: Mapping[str, int]
    epochs: int
    live_seconds: float
    warnings: tuple[str, ...]

    @property
    def bytes(self) -> dict[str, int]:
        """Stored bytes in all, by field, and their "total"."""
        fields = {name: round(value * self.crops) for name, value in self.bytes_per_crop.items()}
        return {**fields, "total": sum(fields.values())}

    @property
    def seconds_shared(self) -> float:
        """Of `precompute` on all `devices`, each with as many processors as this one."""
        return self.seconds / self.devices

    @property
    def cores(self) -> float:
        """Processor cores whose crops keep the teacher busy on a GPU like this one; on a CPU it needs some itself."""
        return self.teacher_crops_s / self.core_crops_s

    @property
    def training_bytes(self) -> dict[str, int]:
        """Memory or scratch space of a node that trains: the seed in use and the next, by target."""
        return {name: TABLES * value for name, value in self.table_bytes.items()}

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        more = ("bytes", "seconds_shared", "cores", "training_bytes")
        return {**dataclasses.asdict(self), **{name: getattr(self, name) for name in more}}


def plan(request: PlanRequest | None = None, /, *, progress: Watch = silent, **settings: Any) -> Plan:
    """Label a few crops and say what labelling all of them will cost, and what training on them will need.

    Nothing is stored. Takes a `PlanRequest`, or its settings by name.

    Raises:
        UsageError: the request makes no sense.
        DataError: images or weights are missing or damaged.
        MismatchError: the teacher predicts other classes than the data's, or `out` holds labels of something else.
    """
    request = PlanRequest.given(request, settings)
    keep_freed_memory()
    import_modules(request.imports)
    from cskd_pipeline.labelling.measuring import measure_job
    from cskd_pipeline.runtime.processors import worker_count
    from cskd_pipeline.storage import open_storage
    from cskd_pipeline.store import StoreReader, is_store, require_store_or_room

    request.require_teacher()
    storage = None if request.out is None else open_storage(request.out)
    if storage is not None:
        require_store_or_room(storage)
    present = StoreReader(storage) if storage is not None and is_store(storage) else None
    job = make_job(request, present, progress)
    if present is not None:
        present.header.require_same(job.header, where=present.path, remedy="plan another --out, or give its settings")
    found = measure_job(
        job,
        seed=request.seeds[0],
        workers=worker_count(request.workers),
        augment=request.augment == "workers",
        seconds=request.seconds,
        watch=progress,
    )
    per_crop = sum(found.bytes_per_crop.values())
    full = None if storage is None else room_for(job, request.seeds, storage, present, bytes_per_crop=per_crop)
    images, header = len(job.index), job.header
    crops = images * len(request.seeds)
    return Plan(
        data=job.index.name,
        split=job.index.split,
        teacher=job.teacher.spec.model,
        device=str(job.teacher.device),
        images=images,
        classes=len(job.index.classes),
        seeds=len(request.seeds),
        crops=crops,
        size=job.recipe.size,
        grid=header.grid,
        measured_crops=found.crops,
        crops_s=found.crops_s,
        teacher_crops_s=found.teacher_crops_s,
        core_crops_s=1 / found.core_s,
        bytes_per_crop=found.bytes_per_crop,
        seconds=crops / found.crops_s,
        devices=request.devices,
        table_bytes={name: images * value for name, value in found.table_bytes_per_crop.items()},
        epochs=request.epochs,
        live_seconds=images * request.epochs / found.teacher_crops_s,
        warnings=() if full is None else (full,),
    )
