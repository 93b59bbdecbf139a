"""A teacher by name: its architecture from timm, its weights from the hub or from a file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import timm
import torch
from torch import nn

from cskd_pipeline.errors import DataError, MismatchError, UsageError, first_line, nearest
from cskd_pipeline.models.normalisation import Channels, normalisation
from cskd_pipeline.models.teacher.spec import TeacherSpec
from cskd_pipeline.models.teacher.teacher import Teacher
from cskd_pipeline.models.timm_model import build_model, refuse_settled
from cskd_pipeline.models.weights import fit_weights, load_weights, weights_digest

TEACHER_ALIASES: Mapping[str, str] = MappingProxyType({"regnety_160": "regnety_160.deit_in1k"})
"""The papers' teacher: timm's bare name stands for other weights."""


def load_teacher(
    name: str,
    *,
    classes: int,
    size: int,
    device: torch.device,
    weights: Path | str | None = None,
    args: Mapping[str, Any] | None = None,
    normalised: tuple[Channels, Channels] | None = None,
    option: str = "--teacher",
    global_source: str | None = None,
    **running: Any,
) -> Teacher:
    """The teacher, ready to run.

    Args:
        name: a timm model or an alias.
        classes: of the data.
        size: side of the crops in pixels.
        weights: a file; None takes timm's pretrained weights.
        args: further keyword arguments of timm.create_model.
        normalised: mean and std of its input; None takes those that timm has for the model.
        option: what the teacher is given by, for errors.
        global_source: of `TeacherSpec`; None is "mean", or "head" for a model with tokens, whose output is not the
            mean over its patches.
        running: fields of `TeacherSpec` that say how it runs (precision, chunk, ...).

    Raises:
        UsageError: no such model, arguments that it refuses, or it gives no logits for such crops.
        DataError: the weights cannot be had, are damaged, or do not fit.
        MismatchError: pretrained weights of another class count.
    """
    tag = resolve_teacher(name)
    arguments = dict(args or {})
    if weights is None:
        refuse_settled(arguments, option=f"{option}-arg")
        published = timm.get_pretrained_cfg(tag)
        if published is not None and published.num_classes != classes:  # before they are downloaded
            raise MismatchError(
                f"teacher {tag} predicts {published.num_classes} classes, the data has {classes}; "
                f"train one on your data (`cskd-pipeline train --student MODEL`) and give {option}-weights"
            )
        model = _pretrained(tag, arguments, option)
    else:
        model = build_model(tag.split(".")[0], classes=classes, args=arguments, option=f"{option}-arg")
        fit_weights(model, load_weights(weights), source=weights)
    mean, std = normalised or normalisation(model)
    spec = TeacherSpec(
        model=tag,
        weights=weights_digest(model),
        classes=classes,
        args=arguments,
        mean=mean,
        std=std,
        global_source=global_source or ("head" if hasattr(model, "num_prefix_tokens") else "mean"),
        **running,
    )
    return Teacher(model, spec, size=size, device=device)


def resolve_teacher(name: str) -> str:
    """timm's name of a teacher, aliases resolved; raises UsageError, with the nearest names, if timm has none such."""
    resolved = TEACHER_ALIASES.get(name, name)
    if not timm.is_model(resolved):
        known = [*TEACHER_ALIASES, *timm.list_models()]
        raise UsageError(f"timm {timm.__version__} has no model {name!r}{nearest(name, known)}")
    base, _, tag = resolved.partition(".")
    tagged = timm.list_pretrained(f"{base}.*")
    if tag and resolved not in tagged:
        raise UsageError(f"timm {timm.__version__} has no weights {resolved!r}{nearest(resolved, tagged)}")
    return resolved


def _pretrained(tag: str, arguments: Mapping[str, Any], option: str) -> nn.Module:
    try:
        model: nn.Module = timm.create_model(tag, pretrained=True, **arguments)
    except Exception as error:  # the hub's client, the network and timm raise many kinds for one thing
        build_model(tag.split(".")[0], classes=2, args=arguments, option=f"{option}-arg")  # were they to blame?
        raise DataError(
            f"no pretrained weights of {tag} within reach ({first_line(error)}); "
            f"check the network, or give the weights as a file with {option}-weights"
        ) from error
    return model
