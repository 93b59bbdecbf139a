"""The same crops again: loading them, ordering them into epochs, and pairing them with stored targets."""

from cskd_pipeline.replay.canary import Canary
from cskd_pipeline.replay.evaluation import EvaluationSet
from cskd_pipeline.replay.loader import CropLoader, killed_workers_named
from cskd_pipeline.replay.order import EpochOrder, block_batches
from cskd_pipeline.replay.source import NoTargets, ReplaySource, TargetProvider
from cskd_pipeline.replay.stored import StoredTargets

__all__ = [
    "Canary",
    "CropLoader",
    "EpochOrder",
    "EvaluationSet",
    "NoTargets",
    "ReplaySource",
    "StoredTargets",
    "TargetProvider",
    "block_batches",
    "killed_workers_named",
]
