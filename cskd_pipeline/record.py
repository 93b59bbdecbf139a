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
    Nested records name their class in `_nested`.
    """

    def to_json(self) -> dict[str, Any]:
        """The fields as plain JSON values; tuples become lists."""
        plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        return plain

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
