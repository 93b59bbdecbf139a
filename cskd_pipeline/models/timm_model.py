"""timm's constructor with errors that a user can act on, and the size of images that a model was built for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import timm
from torch import nn

from cskd_pipeline.errors import UsageError, first_line
from cskd_pipeline.models import civt as civt  # entered among timm's models, as is rednet
from cskd_pipeline.models import rednet as rednet

OF_YOUR_OWN = "; a model of your own is known once its module is imported: --import"
_SETTLED_ELSEWHERE = ("num_classes", "drop_path_rate", "pretrained", "checkpoint_path", "pretrained_cfg")


def build_model(name: str, *, classes: int, args: Mapping[str, Any], option: str, drop_path: float = 0.0) -> nn.Module:
    """timm's model `name` without weights, initialised from torch's global random state.

    Raises UsageError, with the `option` that `args` came from, where the model does not accept them. One that does not
    know stochastic depth is refused only where `drop_path` is not 0.
    """
    refuse_settled(args, option=option)
    arguments = {**args, "drop_path_rate": drop_path} if drop_path else dict(args)
    try:
        model: nn.Module = timm.create_model(name, num_classes=classes, **arguments)
    # Whatever a constructor thinks of its arguments: timm's models check them by assertions and by failing.
    except (TypeError, ValueError, AssertionError, RuntimeError, LookupError, AttributeError, ArithmeticError) as error:
        reason = first_line(error)
        shown = ", ".join(f"{key}={value!r}" for key, value in arguments.items()) or "no arguments"
        remedy = "; it has no stochastic depth, give --drop-path 0" if "'drop_path_rate'" in reason else ""
        raise UsageError(f"timm cannot build {name} with {shown}: {reason}{remedy}") from error
    return model


def refuse_settled(args: Mapping[str, Any], *, option: str) -> None:
    """Raise UsageError if other options decide an argument: timm would make of num_classes an untrained classifier."""
    for key in args:
        if key in _SETTLED_ELSEWHERE:
            raise UsageError(f"{option} {key} is settled by other options; leave it out")


def input_size(model: nn.Module, *, args: Mapping[str, Any]) -> int:
    """Side in pixels of the images that a model was built for, or else that its published weights were made with.

    `args` are those that it was built with: not every model says itself what became of `img_size`.
    """
    fixed: Any = getattr(getattr(model, "patch_embed", None), "img_size", None)
    given = args.get("img_size")
    config: Any = model.pretrained_cfg
    return int(fixed[0] if fixed else given if isinstance(given, int) else config["input_size"][-1])
