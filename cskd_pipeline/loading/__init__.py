"""Crops made by worker processes, in the order of an epoch or of a block, for both stages and for evaluation."""

from cskd_pipeline.loading.evaluation import EvaluationSet
from cskd_pipeline.loading.loader import CropLoader
from cskd_pipeline.loading.order import EpochOrder, block_batches

__all__ = ["CropLoader", "EpochOrder", "EvaluationSet", "block_batches"]
