"""The 300-epoch ImageNet-1k runs of CSKD and of the distilled DeiT that it is compared with.

Sources: CSKD (Zhao, Song and Liang, ICCV 2023, arXiv 2307.08500, tables and official configuration), DeiT (Touvron
et al., ICML 2021, arXiv 2012.12877). bf16 replaces the papers' automatic mixed precision.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from cskd_pipeline.record import Record, require_choice


@dataclasses.dataclass(frozen=True, slots=True)
class Preset(Record):
    """Settings that the command line uses as defaults; explicit options take precedence.

    Attributes:
        name: the preset's own name.
        paper: source of the numbers.
        data: data set that `top1` was measured on.
        teacher: timm tag of the published teacher.
        recipe: crop recipe of the store.
        student: student model.
        objective: JSON form of the objective.
        train: fields of `training.TrainConfig`.
        repeats: views per image in an epoch, which then shows 1/repeats of the images (repeated augmentation).
        top1: published ImageNet-1k top-1 in per cent.
        head: combination of heads for `top1`.
    """

    name: str
    paper: str
    data: str
    teacher: str
    recipe: str
    student: str
    objective: Mapping[str, Any]
    train: Mapping[str, Any]
    top1: float
    head: str
    repeats: int = 3

    @property
    def command(self) -> str:
        """The command that trains it from a finished store."""
        return f"cskd-pipeline train --preset {self.name} --labels LABELS.zarr --data {self.data} --out RUN"


def find_preset(name: str) -> Preset:
    """The preset of this name.

    Raises:
        UsageError: there is none; the message gives the nearest names.
    """
    require_choice("preset", name, PRESETS)
    return PRESETS[name]


_RECIPE: Mapping[str, Any] = MappingProxyType(
    {
        "epochs": 300,
        "batch_size": 1024,
        "optimizer": "adamw",
        "lr": 1e-3,
        "min_lr": 1e-5,
        "warmup_epochs": 5,
        "warmup_lr": 1e-6,
        "weight_decay": 0.05,
        "drop_path": 0.1,
        "ema_decay": 0.99996,
        "precision": "bf16",
    }
)
_BASE: Mapping[str, Any] = MappingProxyType({**_RECIPE, "batch_size": 256, "lr": 2.5e-4})

_CSKD = MappingProxyType({"name": "cskd", "mode": "hard", "schedule": "linear", "alpha": 0.5, "weight": 1.0})
_DEIT = MappingProxyType({"name": "deit", "mode": "hard", "alpha": 0.5})


def _published(
    name: str, objective: Mapping[str, Any], train: Mapping[str, Any], *, student: str, top1: float
) -> Preset:
    return Preset(
        name=name,
        paper="arXiv 2307.08500" if objective["name"] == "cskd" else "arXiv 2012.12877",
        data="imagenet-1k",
        teacher="regnety_160.deit_in1k",
        recipe="deit",
        student=student,
        objective=dict(objective),
        train=dict(train),
        top1=top1,
        head="three_head" if objective["name"] == "cskd" else "two_head",
    )


PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        preset.name: preset
        for preset in (
            _published("cskd-ti", _CSKD, _RECIPE, student="deit_ti", top1=76.3),
            _published("cskd-s", _CSKD, _RECIPE, student="deit_s", top1=82.3),
            _published("cskd-b", _CSKD, _BASE, student="deit_b", top1=83.8),
            _published("deit-ti", _DEIT, _RECIPE, student="deit_ti", top1=74.5),
            _published("deit-s", _DEIT, _RECIPE, student="deit_s", top1=81.2),
            _published("deit-b", _DEIT, _BASE, student="deit_b", top1=83.4),
        )
    }
)
