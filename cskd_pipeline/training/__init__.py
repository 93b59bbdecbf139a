"""Stage 2: train a student on replayed crops and stored targets; stop and resume anywhere without a trace."""

from cskd_pipeline.training.config import TrainConfig
from cskd_pipeline.training.loop import train
from cskd_pipeline.training.run_folder import RunFolder
from cskd_pipeline.training.source import EpochSource
from cskd_pipeline.training.summary import Best, TrainSummary

__all__ = [
    "Best",
    "EpochSource",
    "RunFolder",
    "TrainConfig",
    "TrainSummary",
    "train",
]
