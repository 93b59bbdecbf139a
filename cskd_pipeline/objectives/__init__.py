"""Objectives: what a student is trained to minimise, as a table of self-checking records with a JSON form."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from cskd_pipeline.objectives.civt import Civt
from cskd_pipeline.objectives.cskd import Cskd
from cskd_pipeline.objectives.deit import Deit
from cskd_pipeline.objectives.dist import Dist
from cskd_pipeline.objectives.dkd import Dkd
from cskd_pipeline.objectives.kd import Kd
from cskd_pipeline.objectives.nkd import Nkd
from cskd_pipeline.objectives.objective import Objective, require_objective
from cskd_pipeline.objectives.supervised import Supervised
from cskd_pipeline.objectives.vitkd import Vitkd
from cskd_pipeline.objectives.vkd import Vkd
from cskd_pipeline.objectives.wttm import Wttm
from cskd_pipeline.record import require_choice

__all__ = ["OBJECTIVES", "Objective", "create_objective", "objective_to_json", "require_objective"]

OBJECTIVES: Mapping[str, type[Objective]] = MappingProxyType(
    {objective.name: objective for objective in (Supervised, Deit, Cskd, Kd, Nkd, Wttm, Dist, Dkd, Vkd, Vitkd, Civt)}
)


def create_objective(name: str, **settings: Any) -> Objective:
    """The objective `name` with these settings; the others keep their defaults.

    Raises:
        UsageError: the name, a setting or a value is not allowed.
    """
    require_choice("objective", name, OBJECTIVES)
    return OBJECTIVES[name].from_json(settings)


def objective_to_json(objective: Objective) -> dict[str, Any]:
    """Name and settings as plain JSON values, the arguments of `create_objective`."""
    return {"name": objective.name, **objective.to_json()}
