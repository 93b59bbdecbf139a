"""Stage 1: the teacher over augmented crops, once, into a store that any number of students read."""

from cskd_pipeline.labelling.gap import warn_of_gap
from cskd_pipeline.labelling.job import PrecomputeJob, precompute, work
from cskd_pipeline.labelling.recompute import Difference, Recomputed, recompute
from cskd_pipeline.labelling.repair import Repaired, repair

__all__ = [
    "Difference",
    "PrecomputeJob",
    "Recomputed",
    "Repaired",
    "precompute",
    "recompute",
    "repair",
    "warn_of_gap",
    "work",
]
