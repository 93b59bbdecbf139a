"""Objectives: what a student is trained to minimise, as a table of self-checking records."""

from cskd_pipeline.objectives.objective import Objective, require_objective
from cskd_pipeline.objectives.registry import (
    OBJECTIVES,
    create_objective,
    objective_from_json,
    objective_to_json,
)

__all__ = [
    "OBJECTIVES",
    "Objective",
    "create_objective",
    "objective_from_json",
    "objective_to_json",
    "require_objective",
]
