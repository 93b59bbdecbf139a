"""`--targets` and `--target-arg`: what of the teacher's answer is stored, and how."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from cskd_pipeline.errors import UsageError, nearest

if TYPE_CHECKING:
    from cskd_pipeline.labels import Encoding

Settings = dict[str, dict[str, Any]]
"""Name of an encoding -> settings given for it."""

_MEASURED = {"positions", "classes", "channels"}
"""Settings that the teacher and the data decide."""


def target_settings(targets: str, arguments: Iterable[tuple[str, Any]]) -> Settings:
    """The encodings named in `targets`, with the settings ("name.setting", value) given for them.

    Raises:
        UsageError: there is no such encoding or setting, or one is given for an encoding that is not asked for.
    """
    from cskd_pipeline.labels import ENCODINGS

    chosen: Settings = {}
    for name in (part.strip() for part in targets.split(",")):
        if name not in ENCODINGS:
            raise UsageError(
                f"--targets names {name!r}{nearest(name, list(ENCODINGS))}; give some of {', '.join(ENCODINGS)}, "
                "separated by commas"
            )
        if name in chosen:
            raise UsageError(f"--targets names {name} twice in {targets!r}; name it once")
        chosen[name] = {}
    for key, value in arguments:
        name, dot, setting = key.rpartition(".")
        if not dot:
            raise UsageError(f"--target-arg {key}={value} is not of the form soft.k=8")
        if name not in ENCODINGS:
            raise UsageError(
                f"--target-arg {key} is for {name!r}{nearest(name, list(ENCODINGS))}; there are {', '.join(ENCODINGS)}"
            )
        if name not in chosen:
            raise UsageError(
                f"--target-arg {key} sets what --targets {targets} does not store; add {name} to --targets"
            )
        known = {field.name for field in dataclasses.fields(ENCODINGS[name])} - _MEASURED
        if setting not in known:
            raise UsageError(
                f"--target-arg: {name} has no setting {setting!r}{nearest(setting, sorted(known))}; it has "
                f"{', '.join(sorted(known))}"
            )
        chosen[name][setting] = value
    return chosen


def stored_settings(encodings: Settings) -> Settings:
    """Those that would make the encodings of a store again."""
    return {
        name: {setting: value for setting, value in values.items() if setting not in _MEASURED}
        for name, values in encodings.items()
    }


def described(values: Mapping[str, Any]) -> str:
    """Settings of an encoding on one line; of the scales of channels, which are many, their number."""
    return ", ".join(
        f"{key} {_count(value) + ' measured' if key == 'channels' else value}" for key, value in values.items()
    )


def _count(values: list[Any]) -> str:
    return f"{len(values)} x {len(values[0])}" if isinstance(values[0], list) else str(len(values))


def make_encodings(settings: Settings, *, positions: int, classes: int) -> dict[str, Encoding]:
    """The encodings with these settings, for a teacher's grid and classes.

    Raises:
        UsageError: a value is not allowed.
    """
    from cskd_pipeline.labels import encodings_from_json

    return encodings_from_json(
        {name: {"positions": positions, "classes": classes, **values} for name, values in settings.items()}
    )
