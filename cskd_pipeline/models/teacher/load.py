"""A teacher by name: its architecture from timm, its weights from the hub or from a file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import timm
import torch
from torch import Tensor, nn

from cskd_pipeline.errors import DataError, MismatchError, UsageError, first_line, nearest
from cskd_pipeline.models.hub_model import is_hub_name, open_hub_model
from cskd_pipeline.models.normalisation import Channels, normalisation, normalisation_of
from cskd_pipeline.models.teacher.spec import TeacherSpec
from cskd_pipeline.models.teacher.teacher import Teacher
from cskd_pipeline.models.timm_model import OF_YOUR_OWN, build_model, refuse_settled
from cskd_pipeline.models.weights import fit_weights, load_weights, weights_digest
from cskd_pipeline.progress import Watch, silent

TEACHER_ALIASES: Mapping[str, str] = MappingProxyType({"regnety_160": "regnety_160.deit_in1k"})
"""The papers' teacher: timm's bare name stands for other weights."""


def load_teacher(
    name: str,
    *,
    classes: int,
    size: int,
    device: torch.device,
    weights: Path | str | None = None,
    entry: str | None = None,
    rows: tuple[int, ...] | None = None,
    outputs: int | None = None,
    args: Mapping[str, Any] | None = None,
    normalised: tuple[Channels, Channels] | None = None,
    option: str = "--teacher",
    global_source: str | None = None,
    watch: Watch = silent,
    **running: Any,
) -> Teacher:
    """The teacher, ready to run.

    Args:
        name: a timm model or an alias, or a model with weights and configuration, as `hub_model` names them.
        classes: of the data.
        size: side of the crops in pixels.
        weights: a file, a folder or a model on the hub; None takes timm's pretrained weights.
        entry: where in the file they are, see `load_weights`.
        rows: for every class of the data the output of the classifier that it is; None takes all, in their order.
        outputs: how many there must be, where that is known.
        args: further keyword arguments of timm.create_model.
        normalised: mean and std of its input; None takes those that timm has for the model.
        option: what the teacher is given by, for errors.
        global_source: of `TeacherSpec`; None is "mean", or "head" for a model with tokens, whose output is not the
            mean over its patches.
        watch: is told what `load_weights` and `fit_weights` have to say.
        running: fields of `TeacherSpec` that say how it runs (precision, chunk, ...).

    Raises:
        UsageError: no such model, arguments that it refuses, or it gives no logits for such crops.
        DataError: the weights cannot be had, are damaged, or do not fit.
        MismatchError: pretrained weights of another class count.
    """
    hub = open_hub_model(name) if is_hub_name(name) else None
    arguments = dict(args or {})
    if hub is not None:
        _require_outputs(name, hub.classes, classes, rows=rows, outputs=outputs, option=option)
        weights, arguments = weights or name, {**hub.args, **arguments}
    tag = resolve_teacher(name)
    if rows == tuple(range(classes)) and outputs == classes:
        rows = None
    if weights is None:
        refuse_settled(arguments, option=f"{option}-arg")
        published = timm.get_pretrained_cfg(tag)
        if published is not None:  # before they are downloaded
            _require_outputs(tag, published.num_classes, classes, rows=rows, outputs=outputs, option=option)
        model = _pretrained(tag, arguments, option)
        found = model.state_dict()
    else:
        found = load_weights(weights, entry=entry, option=f"{option}-entry", watch=watch)
    if weights is not None or rows is not None:
        model = build_model(
            tag if weights is None else tag.split(".")[0], classes=classes, args=arguments, option=f"{option}-arg"
        )
        found = _of_classes(model, found, classes, rows=rows, outputs=outputs, source=weights or tag, option=option)
        fit_weights(model, found, source=weights or tag, watch=watch)
    mean, std = normalised or (normalisation(model) if hub is None else normalisation_of(hub.config, hub.architecture))
    spec = TeacherSpec(
        model=tag,
        weights=weights_digest(model),
        classes=classes,
        args=arguments,
        mean=mean,
        std=std,
        global_source=global_source or ("head" if hasattr(model, "num_prefix_tokens") else "mean"),
        rows=rows,
        **running,
    )
    return Teacher(model, spec, size=size, device=device)


def resolve_teacher(name: str) -> str:
    """timm's name of a teacher, aliases and models of a hub resolved.

    Raises UsageError, with the nearest names, if timm has none such, and what `open_hub_model` raises.
    """
    resolved = open_hub_model(name).architecture if is_hub_name(name) else TEACHER_ALIASES.get(name, name)
    if not timm.is_model(resolved):
        known = [*TEACHER_ALIASES, *timm.list_models()]
        raise UsageError(f"timm {timm.__version__} has no model {resolved!r}{nearest(resolved, known)}{OF_YOUR_OWN}")
    base, _, tag = resolved.partition(".")
    tagged = timm.list_pretrained(f"{base}.*")
    if tag and resolved not in tagged:
        raise UsageError(f"timm {timm.__version__} has no weights {resolved!r}{nearest(resolved, tagged)}")
    return resolved


def _require_outputs(
    tag: str, found: int, classes: int, *, rows: tuple[int, ...] | None, outputs: int | None, option: str
) -> None:
    if rows is None and found != classes:
        raise MismatchError(
            f"teacher {tag} predicts {found} classes, the data has {classes}; say with {option}-classes which of its "
            f"outputs they are (imagenet-1k, or a file), or train one on your data (`cskd-pipeline train --student "
            f"MODEL`) and give {option}-weights"
        )
    if rows is not None and (outputs or found) != found:
        raise MismatchError(
            f"teacher {tag} predicts {found} classes, {option}-classes names {outputs}; give the list that it was "
            "trained on"
        )


def _of_classes(
    model: nn.Module,
    weights: Mapping[str, Tensor],
    classes: int,
    *,
    rows: tuple[int, ...] | None,
    outputs: int | None,
    source: Path | str,
    option: str,
) -> dict[str, Tensor]:
    """Weights with a classifier for the data's classes: of one for more, or in another order, these rows alone."""
    config: Any = model.pretrained_cfg
    named = config.get("classifier") or ()
    taken = dict(getattr(model, "own_names", dict)(weights))
    for layer in (named,) if isinstance(named, str) else named:
        for key in (f"{layer}.weight", f"{layer}.bias"):
            if key not in taken:
                continue
            found = len(taken[key])
            if rows is None and found != classes:
                raise MismatchError(
                    f"the classifier in {source} has {found} outputs, the data has {classes} classes; say with "
                    f"{option}-classes which of its outputs they are (imagenet-1k, or a file), or give weights that "
                    "were trained on your data"
                )
            if rows is not None:
                if found != (outputs or found) or max(rows) >= found:
                    raise MismatchError(
                        f"the classifier in {source} has {found} outputs, {option}-classes names {outputs or 'more'}; "
                        "give the list that it was trained on"
                    )
                taken[key] = taken[key][list(rows)]
    return taken


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
