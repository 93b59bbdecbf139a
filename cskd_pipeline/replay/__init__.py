"""The crops of an epoch again, each with its targets: stored ones, or a teacher's beside."""

from cskd_pipeline.replay.canary import Canary
from cskd_pipeline.replay.loader import ReplayLoader
from cskd_pipeline.replay.source import NoTargets, ReplaySource, TargetProvider
from cskd_pipeline.replay.stored import JoinedTargets, StoredTargets, require_stored, stored_targets

__all__ = [
    "Canary",
    "JoinedTargets",
    "NoTargets",
    "ReplayLoader",
    "ReplaySource",
    "StoredTargets",
    "TargetProvider",
    "require_stored",
    "stored_targets",
]
