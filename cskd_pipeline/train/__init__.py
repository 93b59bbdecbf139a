"""Stage 2: train a student on replayed crops and stored targets; stop and resume anywhere without a trace."""

from cskd_pipeline.train.config import TrainConfig
from cskd_pipeline.train.loop import train
from cskd_pipeline.train.run_folder import RunFolder
from cskd_pipeline.train.source import EpochSource
from cskd_pipeline.train.summary import Best, TrainSummary

__all__ = [
    "Best",
    "EpochSource",
    "RunFolder",
    "TrainConfig",
    "TrainSummary",
    "train",
]
