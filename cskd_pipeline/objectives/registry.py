"""The table of objectives, and their JSON form."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from cskd_pipeline.errors import UsageError
from cskd_pipeline.objectives.cskd import Cskd
from cskd_pipeline.objectives.deit import Deit
from cskd_pipeline.objectives.objective import Objective
from cskd_pipeline.objectives.supervised import Supervised
from cskd_pipeline.record import require_choice

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
    """The objective that `objective_to_json` wrote.

    Raises:
        UsageError: there is no name, or a setting is not allowed.
    """
    if "name" not in values:
        raise UsageError(f"an objective needs a name, one of {', '.join(OBJECTIVES)}")
    return create_objective(values["name"], **{key: value for key, value in values.items() if key != "name"})
