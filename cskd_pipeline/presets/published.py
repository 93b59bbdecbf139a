"""The papers' 300-epoch ImageNet-1k runs: CSKD, the distilled DeiT it is compared with, NKD, ViTKD, VkD and Co-advise.

Sources: CSKD (Zhao, Song and Liang, ICCV 2023, arXiv 2307.08500, tables and official configuration), DeiT (Touvron
et al., ICML 2021, arXiv 2012.12877), NKD (Yang et al., ICCV 2023, arXiv 2303.13005) and ViTKD (Yang et al., arXiv
2209.02432) with their code, VkD (Miles et al., CVPR 2024, arXiv 2403.06213; schedule not stated there, taken from
Co-advise, whose stem its students have), Co-advise (Ren et al., CVPR 2022, arXiv 2106.12378, and its code). bf16
replaces the papers' automatic mixed precision.
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
        teacher: timm tag of the published teacher, or of both.
        recipe: crop recipe of the store.
        student: student model.
        objective: JSON form of the objective.
        train: fields of `training.TrainConfig`.
        repeats: views per image in an epoch, which then shows 1/repeats of the images (repeated augmentation).
        top1: published ImageNet-1k top-1 in per cent; None where no source gives it.
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
    top1: float | None
    head: str
    repeats: int = 3

    @property
    def command(self) -> str:
        """The command that trains it from a finished store."""
        labels = " ".join("--labels LABELS.zarr" for _ in self.teacher.split(" and "))
        return f"cskd-pipeline train --preset {self.name} {labels} --data {self.data} --out RUN"


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

_PLAIN: Mapping[str, Any] = MappingProxyType(
    {**_RECIPE, "warmup_epochs": 20, "drop_path": 0.0, "ema_decay": 0.0, "clip_grad": 5.0}
)
"""Without repeated augmentation, moving average and drop path."""

_PLAIN_BASE: Mapping[str, Any] = MappingProxyType({**_PLAIN, "drop_path": 0.1, "ema_decay": 0.99996})
_CIVT: Mapping[str, Any] = MappingProxyType({**_PLAIN, "clip_grad": 15.0})

_CSKD = MappingProxyType({"name": "cskd", "mode": "hard", "schedule": "linear", "alpha": 0.5, "weight": 1.0})
_DEIT = MappingProxyType({"name": "deit", "mode": "hard", "alpha": 0.5})
_NKD = MappingProxyType({"name": "nkd", "gamma": 1.0, "temperature": 1.0})
_VITKD = MappingProxyType({"name": "vitkd", "alpha": 3e-5, "beta": 3e-6, "mask": 0.5, "nkd": True})
_VKD = MappingProxyType({"name": "vkd", "weight": 1.0, "temperature": 1.0})
_PAPERS = MappingProxyType(
    {
        "cskd": "arXiv 2307.08500",
        "deit": "arXiv 2012.12877",
        "nkd": "arXiv 2303.13005",
        "vitkd": "arXiv 2209.02432",
        "vkd": "arXiv 2403.06213",
        "civt": "arXiv 2106.12378",
    }
)
_HEADS = MappingProxyType({"cskd": "three_head", "civt": "civt_head"})


def _published(
    name: str,
    objective: Mapping[str, Any],
    train: Mapping[str, Any],
    *,
    student: str,
    top1: float | None,
    teacher: str = "regnety_160.deit_in1k",
    repeats: int = 3,
) -> Preset:
    return Preset(
        name=name,
        paper=_PAPERS[objective["name"]],
        data="imagenet-1k",
        teacher=teacher,
        recipe="deit",
        student=student,
        objective=dict(objective),
        train=dict(train),
        top1=top1,
        head=_HEADS.get(objective["name"], "two_head"),
        repeats=repeats,
    )


def _from_vit(
    objective: Mapping[str, Any], size: str, train: Mapping[str, Any], *, teacher: str, top1: float | None
) -> Preset:
    """A plain DeiT, taught by a DeiT III."""
    names = {"ti": "tiny", "s": "small", "b": "base"}
    return _published(
        f"{objective['name']}-{size}",
        objective,
        train,
        student=f"deit_{names[size]}_patch16_224",
        top1=top1,
        teacher=f"deit3_{teacher}_patch16_224.fb_in22k_ft_in1k",
        repeats=1,
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
            _from_vit(_NKD, "ti", _PLAIN, teacher="small", top1=76.68),
            _from_vit(_NKD, "s", _PLAIN, teacher="base", top1=None),
            _from_vit(_NKD, "b", _PLAIN_BASE, teacher="large", top1=84.96),
            _from_vit(_VITKD, "ti", _PLAIN, teacher="small", top1=77.78),
            _from_vit(_VITKD, "s", _PLAIN, teacher="base", top1=83.59),
            _from_vit(_VITKD, "b", _PLAIN_BASE, teacher="large", top1=85.41),
            _published("vkd-ti", _VKD, _CIVT, student="deit_ti", top1=78.3, repeats=1),
            _published("vkd-s", _VKD, _CIVT, student="deit_s", top1=82.3, repeats=1),
            _published(
                "civt-s",
                {"name": "civt"},
                _CIVT,
                student="civt_s",
                top1=None,
                teacher="regnety_040 and rednet101",
                repeats=1,
            ),
        )
    }
)
