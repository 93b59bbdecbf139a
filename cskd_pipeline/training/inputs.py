"""What a run trains on: a typed record in the run folder, which a resumed run must find unchanged."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

from cskd_pipeline.record import Record


@dataclasses.dataclass(frozen=True, slots=True)
class RunInputs(Record):
    """The data, crops and targets of a run.

    Attributes:
        targets: "stored" ones, those of a "live" teacher, or "none".
        data: name, split and digest of the images. The digest identifies them; the name may change.
        classes: names of the classes, by label.
        recipe: fields of the crop recipe.
        seeds: augmentation seeds that the epochs cycle through.
        repeats: seeds shown in an epoch.
        shuffle: "full" or "blocks".
        crop_pct: share of the image that evaluation sees.
        evaluation: split and digest of the images that are evaluated on, None without evaluation.
        start: digest of the weights that the student started from, None for random ones.
        teacher: attributes of the teacher, None without one.
        encodings: settings of the store's encodings, None without a store.
    """

    targets: Literal["stored", "live", "none"]
    data: Mapping[str, str]
    classes: tuple[str, ...]
    recipe: Mapping[str, Any]
    seeds: tuple[int, ...]
    repeats: int
    shuffle: str
    crop_pct: float
    evaluation: tuple[str, str] | None = None
    start: str | None = None
    teacher: Mapping[str, Any] | None = None
    encodings: Mapping[str, Any] | None = None
