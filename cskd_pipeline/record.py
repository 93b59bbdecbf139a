"""Frozen dataclasses that check themselves, round-trip through JSON and refuse what they do not know."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import numbers
from collections.abc import Iterable, Mapping
from typing import Any, Self

from cskd_pipeline.errors import UsageError, nearest


@dataclasses.dataclass(frozen=True, slots=True)
class Record:
    """A frozen dataclass whose JSON form is its list of fields.

    Subclasses check themselves in `__post_init__` and raise `UsageError` with the bound and the value found.
    A field that older records lack is declared by `later`; it is left out of the JSON form where it has no value.
    """

    def to_json(self) -> dict[str, Any]:
        """The fields as plain JSON values; tuples become lists."""
        plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        absent = [field.name for field in dataclasses.fields(self) if is_later(field) and plain[field.name] is None]
        return {name: value for name, value in plain.items() if name not in absent}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """The record with these fields.

        Raises:
            UsageError: a field is unknown or missing.
        """
        known = {field.name: field for field in dataclasses.fields(cls)}
        for name in values:
            if name not in known:
                raise UsageError(
                    f"{cls.__name__} has no field {name!r}{nearest(name, list(known))}; known: {', '.join(known)}"
                )
        missing = [
            name
            for name, field in known.items()
            if name not in values
            and field.default is dataclasses.MISSING
            and field.default_factory is dataclasses.MISSING
        ]
        if missing:
            raise UsageError(f"{cls.__name__} needs {', '.join(missing)}")
        return cls(**{name: _tuples(value) for name, value in values.items()})

    def digest(self) -> str:
        """Sixteen hex digits, equal for equal records and different otherwise."""
        return digest_json(self.to_json())


def later() -> Any:
    """The default, None, of a field that records written before it was introduced do not have."""
    return dataclasses.field(default=None, metadata={"later": True})


def is_later(field: dataclasses.Field[Any]) -> bool:
    """Whether a field is declared by `later`."""
    return bool(field.metadata.get("later"))


def digest_json(value: object) -> str:
    """Sixteen hex digits of the canonical JSON form of `value`."""
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(canonical.encode(), digest_size=8).hexdigest()


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


def require_choice(name: str, value: str, choices: Iterable[str]) -> None:
    """Raise UsageError, with the nearest choice, unless `value` is one of `choices`."""
    known = list(choices)
    if value not in known:
        raise UsageError(f"{name} is {value!r}{nearest(str(value), known)}; choose one of {', '.join(known)}")


def require_flag(name: str, value: Any) -> None:
    """Raise UsageError unless `value` is true or false."""
    if not isinstance(value, bool):
        raise UsageError(f"{name} must be true or false, found {value!r}")


def require_range(
    name: str,
    value: float,
    *,
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    whole: bool = False,
) -> None:
    """Raise UsageError unless `value` is a number with low <= value <= high and above < value; None is no bound.

    With `whole`, only an int will do.
    """
    number: Any = value  # NumPy's are numbers too, though no int or float
    if isinstance(number, bool) or not isinstance(number, numbers.Integral if whole else numbers.Real):
        raise UsageError(f"{name} must be a {'whole number' if whole else 'number'}, found {value!r}")
    bounds = [
        (low is None or value >= low, f"at least {low}"),
        (above is None or value > above, f"greater than {above}"),
        (high is None or value <= high, f"at most {high}"),
    ]
    if not all(holds for holds, _ in bounds):
        broken = " and ".join(text for holds, text in bounds if not holds)
        raise UsageError(f"{name} must be {broken}, found {value}")
