"""Objectives: what a student is trained to minimise, as a table of self-checking records with a JSON form."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from cskd_pipeline.errors import UsageError
from cskd_pipeline.objectives.cskd import Cskd
from cskd_pipeline.objectives.deit import Deit
from cskd_pipeline.objectives.objective import Objective, require_objective
from cskd_pipeline.objectives.supervised import Supervised
from cskd_pipeline.record import require_choice

__all__ = [
    "OBJECTIVES",
    "Objective",
    "create_objective",
    "objective_from_json",
    "objective_to_json",
    "require_objective",
]

OBJECTIVES: Mapping[str, type[Objective]] = MappingProxyType(
    {objective.name: objective for objective in (Supervised, Deit, Cskd)}
)


def create_objective(name: str, **settings: Any) -> Objective:
    """The objective `name` with these settings; the others keep their defaults.

    Raises:
        UsageError: the name, a setting or a value is not allowed.
    """
    require_choice("objective", name, OBJECTIVES)
    return OBJECTIVES[name].from_json(settings)


def objective_to_json(objective: Objective) -> dict[str, Any]:
    """Name and settings as plain JSON values."""
    return {"name": objective.name, **objective.to_json()}


def objective_from_json(values: Mapping[str, Any]) -> Objective:
    """The objective that `objective_to_json` wrote; errors as `create_objective`."""
    if "name" not in values:
        raise UsageError(f"an objective needs a name, one of {', '.join(OBJECTIVES)}")
    return create_objective(values["name"], **{key: value for key, value in values.items() if key != "name"})
