"""How the input of a model is normalised: (pixels in 0..1 - mean) / std, per channel."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal

from timm.data import constants
from torch import nn

from cskd_pipeline.errors import UsageError, nearest

Channels = tuple[float, float, float]
"""Values of red, green and blue."""

PUBLISHED: Mapping[str, Mapping[str, Channels]] = MappingProxyType(
    {
        "imagenet": {"mean": constants.IMAGENET_DEFAULT_MEAN, "std": constants.IMAGENET_DEFAULT_STD},
        "inception": {"mean": constants.IMAGENET_INCEPTION_MEAN, "std": constants.IMAGENET_INCEPTION_STD},
        "clip": {"mean": constants.OPENAI_CLIP_MEAN, "std": constants.OPENAI_CLIP_STD},
        "none": {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)},
    }
)
"""Those in use, by the names that timm has for them; none is that of torchvision's bare `ToTensor`."""


def normalisation(model: nn.Module) -> tuple[Channels, Channels]:
    """Mean and standard deviation, per channel in 0..1, that the input of a timm model is normalised with.

    The model may be the `model` of a student, or wrapped for several GPUs. Raises UsageError where it does not say how.
    """
    inner = model
    while not hasattr(inner, "pretrained_cfg"):
        wrapped = getattr(inner, "module", None) or getattr(inner, "model", None)
        if not isinstance(wrapped, nn.Module):
            raise UsageError(
                f"{type(model).__name__} does not say how its input is normalised; give it a pretrained_cfg with mean "
                "and std, as timm's models have"
            )
        inner = wrapped
    return normalisation_of(inner.pretrained_cfg, type(inner).__name__)


def normalisation_of(config: Any, name: str) -> tuple[Channels, Channels]:
    """Mean and std of a `pretrained_cfg`; UsageError, naming the model, where it has none of three channels."""
    try:
        mean, std = ((float(r), float(g), float(b)) for r, g, b in (config["mean"], config["std"]))
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(f"the pretrained_cfg of {name} must have mean and std of three channels") from error
    return mean, std


def parse_channels(text: str, which: Literal["mean", "std"], *, option: str) -> Channels:
    """A name of `PUBLISHED`, one number for all channels, or three, as "0.5,0.5,0.5".

    Raises UsageError, naming `option`, for anything else, a mean out of 0..1, or a std that is not above 0 and at
    most 1.
    """
    if text in PUBLISHED:
        return PUBLISHED[text][which]
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(
            f"{option} must be {', '.join(PUBLISHED)}, a number, or three as 0.5,0.5,0.5; found {text!r}"
            f"{nearest(text, list(PUBLISHED))}"
        ) from None
    if len(numbers) == 1:
        numbers *= 3
    if len(numbers) != 3:
        raise UsageError(f"{option} must have one number, or three for red, green and blue; found {text!r}")
    if not all(0 <= number <= 1 for number in numbers) or (which == "std" and 0 in numbers):
        bounds = "in 0..1" if which == "mean" else "above 0 and at most 1"
        raise UsageError(
            f"{option} must be {bounds}, for pixels in 0..1 (divide values for 0..255 by 255); found {text!r}"
        )
    red, green, blue = numbers
    return red, green, blue
