"""Building a student by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import timm
import torch
from timm.models.beit import Beit
from timm.models.deit import VisionTransformerDistilled
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from cskd_pipeline.errors import UsageError, nearest
from cskd_pipeline.models.civt import CivT
from cskd_pipeline.models.hub_model import is_hub_name
from cskd_pipeline.models.student.heads import (
    CivtStudent,
    PlainStudent,
    PooledStudent,
    Student,
    StudentSpec,
    TokenStudent,
)
from cskd_pipeline.models.student.probe import require_answers, require_tiles, with_map_head
from cskd_pipeline.models.timm_model import OF_YOUR_OWN, build_model, input_size
from cskd_pipeline.models.weights import fit_weights, load_weights
from cskd_pipeline.progress import Watch, silent

ALIASES: Mapping[str, str] = MappingProxyType(
    {
        "deit_ti": "deit_tiny_distilled_patch16_224",
        "deit_s": "deit_small_distilled_patch16_224",
        "deit_b": "deit_base_distilled_patch16_224",
    }
)
"""The papers' names, which timm does not know."""


def resolve_name(name: str) -> str:
    """timm's name of a model, aliases resolved; raises UsageError, with the nearest names, if timm has no such one."""
    if is_hub_name(name):
        raise UsageError(f"a student is named by its architecture, found {name!r}; give that as --student-weights")
    resolved = ALIASES.get(name, name)
    if not timm.is_model(resolved):
        known = [*ALIASES, *timm.list_models()]
        raise UsageError(f"timm {timm.__version__} has no model {name!r}{nearest(name, known)}{OF_YOUR_OWN}")
    return resolved


def create_student(
    name: str,
    *,
    classes: int,
    grid: tuple[int, int] | None = None,
    size: int | None = None,
    args: Mapping[str, Any] | None = None,
    drop_path: float = 0.0,
    distillation: bool = False,
    layers: tuple[int, ...] = (),
    weights: Path | str | None = None,
    entry: str | None = None,
    seed: int = 0,
    watch: Watch = silent,
) -> Student:
    """A student on the CPU, initialised from `seed` without touching the global random state.

    Args:
        name: a timm model, one that this package adds (`models.rednet`, `models.civt`), or an alias (`deit_ti`,
            `deit_s`, `deit_b`).
        grid: (H, W) of the teacher for dense logits, None for none. (1, 1) gives their mean over positions,
            which is all that evaluation needs.
        size: side in pixels of the crops that it will see, and is tried with; None for the model's own.
        args: further keyword arguments of timm.create_model.
        distillation: give a model without a distillation token the second head that a distillation objective needs.
        layers: blocks whose patch tokens it shows, the last of them -1, which for models without tokens is the last
            feature map.
        weights: what to start from, as `load_weights` takes it; classifiers of another class count keep their own
            start (see `fresh`).
        entry: where in the file they are.
        seed: of its own start.
        watch: is told what `load_weights` and `fit_weights` have to say.

    Raises:
        UsageError: unknown model, arguments it refuses or that make it something else than a classifier of RGB
            images, or a model that cannot be distilled into.
        MismatchError: its patch tokens or last feature map do not pool to `grid`, or it takes images of another size.
        DataError: `weights` is damaged or does not fit.
    """
    distillation = distillation or grid is not None
    spec = StudentSpec(
        model=resolve_name(name),
        classes=classes,
        grid=grid,
        args=dict(args or {}),
        drop_path=drop_path,
        distillation=distillation,
        layers=layers or None,
    )
    with torch.random.fork_rng(devices=[]):
        # Not torch.manual_seed, which seeds every GPU as well.
        torch.default_generator.manual_seed(seed)
        model = build_model(spec.model, classes=classes, args=spec.args, option="--student-arg", drop_path=drop_path)
        plain = PlainStudent(model, spec)
        plain.size = input_size(model, args=spec.args) if size is None else size
        student = _with_heads(plain)
    student.size = plain.size
    require_answers(student, size=student.size)
    if weights is not None:
        student.fresh = fit_weights(
            student.model,
            load_weights(weights, entry=entry, option="--student-entry", watch=watch),
            source=weights,
            may_differ=("head.", "head_dist.", "head_conv.", "head_inv.", "fc.", "classifier.", *_classifiers(model)),
            watch=watch,
        )
    return student


def can_be_distilled(student: Student) -> bool:
    """Whether the model is one of those that have patch tokens or a last feature map for dense logits."""
    model = student.model
    return not isinstance(model, CivT) and (
        isinstance(model, VisionTransformer) or hasattr(model, "forward_intermediates")
    )


def _classifiers(model: Any) -> tuple[str, ...]:
    """Prefixes of the weights that depend on the number of classes, as the model's configuration names them."""
    named = model.pretrained_cfg.get("classifier") or ()
    return tuple(f"{name}." for name in ((named,) if isinstance(named, str) else named))


def _with_heads(plain: PlainStudent) -> Student:
    """The student with the heads that its spec asks for."""
    model: Any = plain.model
    spec = plain.spec
    if spec.layers is not None:
        _require_blocks(model, spec, spec.layers)
    if isinstance(model, CivT):
        if spec.distillation or spec.layers:
            raise UsageError(
                f"{spec.model} has a head for each of two teachers and none for this objective's targets; choose "
                "another --objective, or a student such as deit_s"
            )
        return CivtStudent(model, spec)
    if isinstance(model, VisionTransformer):
        if spec.distillation and not isinstance(model.head, nn.Linear):
            raise UsageError(
                f"{spec.model} has no linear classifier to distil into; leave out --student-arg that change it"
            )
        if spec.grid is not None:
            _require_patch_grid(model, spec, spec.grid)
        if isinstance(model, VisionTransformerDistilled):
            return TokenStudent(model, spec)
        return PooledStudent(model, spec) if spec.distillation else plain
    if not spec.distillation:
        return plain
    _require_all_patches(model, spec)
    require_answers(PlainStudent(model, dataclasses.replace(spec, layers=None)), size=plain.size)
    return with_map_head(plain)


def _require_patch_grid(model: VisionTransformer, spec: StudentSpec, grid: tuple[int, int]) -> None:
    _require_all_patches(model, spec)
    image, patch = model.patch_embed.img_size, model.patch_embed.patch_size
    if grid != (1, 1) and (image[0] % patch[0] or image[1] % patch[1]):
        raise UsageError(
            f"patches of {patch[0]} x {patch[1]} pixels do not cover {image[0]} x {image[1]}, so its grid "
            "is not the teacher's; choose another --student-arg patch_size or img_size"
        )
    require_tiles(model.patch_embed.grid_size, grid, what="patch tokens", remedy="another patch size or image size")


def _require_blocks(model: Any, spec: StudentSpec, layers: tuple[int, ...]) -> None:
    _require_all_patches(model, spec)
    depth = len(model.blocks) if isinstance(model, VisionTransformer | Eva | Beit) else 0
    if len(layers) > 1 and max(layers) >= depth - 1:
        raise UsageError(
            f"the objective reads the patch tokens of blocks {[*layers]}, {spec.model} has "
            f"{depth or 'no'} blocks of patch tokens; choose a vision transformer, such as deit_small_patch16_224"
        )


def _require_all_patches(model: nn.Module, spec: StudentSpec) -> None:
    if not isinstance(getattr(model, "patch_drop", None), nn.Identity | None):
        raise UsageError(f"{spec.model} drops patches, so its dense logits have no grid; leave out patch_drop_rate")
