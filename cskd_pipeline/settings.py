"""What a user can set, declared once: type, default, bounds, group and a sentence.

A request to the library is a frozen dataclass of such settings; the command line makes its options from the same
fields. A setting `batch_size` is the option `--batch-size`, and error messages name it so.
"""

from __future__ import annotations

import dataclasses
import json
import numbers
import os
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, Union

from cskd_pipeline.errors import UsageError, nearest
from cskd_pipeline.record import Record, require_choice, require_range
from cskd_pipeline.seeds import format_seeds, parse_seeds

Group = Literal["data", "labels", "student", "objective", "schedule", "teacher", "crops", "machine", "output"]

Seeds = tuple[int, ...]
"""Augmentation seeds, ascending. May be given as "0:30", "0:10,20", a number, a range or a list."""

Named = Mapping[str, Any]
"""Arguments by name, handed on to timm, a recipe or an objective."""


def setting(
    default: Any = dataclasses.MISSING,
    help: str = "",
    *,
    group: Group,
    metavar: str | None = None,
    shown: str | None = None,
    option: str | None = None,
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    off: bool = False,
) -> Any:
    """A field of a request; one without a default must be given.

    `--help` lists it in `group`, with `metavar` for its value and `shown` for a default that the value does not say.
    `option` names it where the field does not (repeated `--student-arg` for `student_args`); `--no-NAME` turns a switch
    that is `off` off. `low`, `high` and `above` are bounds of a number, all but `above` inclusive.
    """
    details = {"help": help, "group": group, "metavar": metavar, "shown": shown, "option": option, "off": off}
    metadata = {**details, "bounds": {"low": low, "high": high, "above": above}}
    if isinstance(default, dict):
        return dataclasses.field(default_factory=lambda: dict(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(Record):
    """A request, or a part of one. Values are converted where several forms are taken, and checked: UsageError names
    the option, the value found and what it must be.
    """

    noun: ClassVar[str] = "this request"

    def __post_init__(self) -> None:
        for name, kind in kinds(type(self)).items():
            object.__setattr__(self, name, kind.checked(getattr(self, name)))

    @classmethod
    def of(cls, **settings: Any) -> Self:
        """The request with these settings, the others at their defaults; UsageError if one is unknown or missing."""
        known = kinds(cls)
        for name in settings:
            if name not in known:
                raise UsageError(
                    f"{cls.noun} has no setting {name!r}{nearest(name, list(known))}; it has {', '.join(known)}"
                )
        missing = [kind.option for name, kind in known.items() if kind.required and name not in settings]
        if missing:
            raise UsageError(f"{cls.noun} needs {' and '.join(missing)}")
        return cls(**settings)

    @classmethod
    def given(cls, request: Self | None, settings: Mapping[str, Any]) -> Self:
        """The request as a verb takes it, whole or as settings by name; UsageError if as both, or as another verb's."""
        if request is None:
            return cls.of(**settings)
        if not isinstance(request, cls):
            raise UsageError(f"{cls.noun} takes a {cls.__name__}, or its settings by name, found {request!r}")
        if settings:
            raise UsageError(f"{cls.noun} takes a request or settings, found a request and {', '.join(settings)}")
        return request

    def part(self, kind: type[Part]) -> Part:
        """The settings that belong to a group of settings `kind` which this request includes."""
        return kind(**{field.name: getattr(self, field.name) for field in dataclasses.fields(kind)})


Part = typing.TypeVar("Part", bound=Settings)


def words(request: Settings) -> list[str]:
    """The options of a command line that make this request, those at their defaults left out."""
    found = []
    for name, kind in kinds(type(request)).items():
        value = getattr(request, name)
        if value == kind.default:
            continue
        if kind.type is bool:
            found.append(kind.option if value else f"--no-{kind.option.removeprefix('--')}")
        elif kind.type == Seeds:
            found += [kind.option, format_seeds(value)]
        elif kind.type == Named:
            found += [word for key, item in value.items() for word in (kind.option, f"{key}={_plain(item)}")]
        elif kind.repeated:
            found += [word for item in value for word in (kind.option, item)]
        else:
            found += [kind.option, str(value)]
    return found


def _plain(value: Any) -> str:
    """A value as YAML, which JSON is; a word that YAML takes for text needs no quotes."""
    if isinstance(value, str) and value.isidentifier() and value.lower() not in _YAML_WORDS:
        return value
    return json.dumps(value)


_YAML_WORDS = frozenset({"null", "true", "false", "yes", "no", "on", "off", "y", "n"})


@dataclasses.dataclass(frozen=True, slots=True)
class Kind:
    """A setting's declaration: what `setting` was given, and the field's name and type.

    `type` is that of the value without None, for which `optional` stands: int, float, bool, str, Path, Seeds, Named,
    tuple[str, ...] or a Literal. `default` is `dataclasses.MISSING` where it must be given.
    """

    name: str
    type: Any
    optional: bool
    default: Any
    help: str
    group: Group
    metavar: str | None
    shown: str | None
    off: bool
    option: str
    bounds: Mapping[str, float | None]

    @property
    def required(self) -> bool:
        """Whether a request must give it."""
        return self.default is dataclasses.MISSING

    @property
    def choices(self) -> tuple[str, ...]:
        """The values of a Literal, of one or of a repeated one; () for any other type."""
        inner = self.type
        if typing.get_origin(inner) is tuple:
            inner = typing.get_args(inner)[0]
        return typing.get_args(inner) if typing.get_origin(inner) is Literal else ()

    @property
    def repeated(self) -> bool:
        """Whether several values are given one by one."""
        return self.type == Named or (typing.get_origin(self.type) is tuple and self.type != Seeds)

    def checked(self, value: Any) -> Any:
        """The value as the field holds it; UsageError if it is of another type, or out of bounds."""
        if value is None:
            if self.optional:
                return None
            raise UsageError(f"{self.option} must be given, found None")
        if self.type in (int, float):
            require_range(self.option, value, whole=self.type is int, **self.bounds)
            return self.type(value)
        if self.type is Path:
            self._require(isinstance(value, str | os.PathLike), "a path", value)
            return Path(value)
        if self.type == Seeds:
            return checked_seeds(value, option=self.option)
        if self.type == Named:
            self._require(isinstance(value, Mapping | list | tuple), "a mapping of names to values", value)
            return dict(value)
        if self.repeated:
            if isinstance(value, str | os.PathLike) and not self.choices:
                value = (value,)
            self._require(isinstance(value, list | tuple | set | frozenset), "a list", value)
            if self.choices:
                for item in value:
                    require_choice(self.option, item, self.choices)
                return tuple(value)
            self._require(all(isinstance(item, str | os.PathLike) for item in value), "a list of texts", value)
            return tuple(map(os.fspath, value))
        if self.choices:
            require_choice(self.option, value, self.choices)
            return value
        if self.type is str and isinstance(value, os.PathLike):
            return os.fspath(value)
        self._require(isinstance(value, self.type), {bool: "true or false", str: "text"}[self.type], value)
        return value

    def _require(self, holds: bool, what: str, value: Any) -> None:
        if not holds:
            raise UsageError(f"{self.option} must be {what}, found {value!r}")


def kinds(request: type[Settings]) -> Mapping[str, Kind]:
    """The settings of a request by name, in the order of `--help`."""
    hints = typing.get_type_hints(request)
    found = {}
    for field in dataclasses.fields(request):
        hint, optional = hints[field.name], False
        if typing.get_origin(hint) in (Union, types.UnionType):
            inner = [part for part in typing.get_args(hint) if part is not type(None)]
            hint, optional = inner[0], len(inner) < len(typing.get_args(hint))
        default = field.default
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        details = dict(field.metadata)
        option = "--" + (details.pop("option") or field.name).replace("_", "-")
        found[field.name] = Kind(field.name, hint, optional, default, option=option, **details)
    return types.MappingProxyType(found)


def checked_seeds(value: Any, *, option: str) -> Seeds:
    """Seeds in any of their forms as an ascending tuple; UsageError, with `option`, if malformed or none."""
    if isinstance(value, str):
        return tuple(parse_seeds(value))
    if not isinstance(value, bool) and isinstance(value, numbers.Integral):
        value = [value]
    try:
        seeds = sorted({*value})
    except TypeError:
        seeds = [None]
    for seed in seeds or [None]:
        if isinstance(seed, bool) or not isinstance(seed, numbers.Integral) or seed < 0:
            raise UsageError(f"{option} must name seeds from 0 on, such as 7, 0:30 or range(30), found {value!r}")
    return tuple(int(seed) for seed in seeds)
