"""Evaluation: exact scores of every combination of a student's heads, over all ranks."""

from cskd_pipeline.evaluation.evaluation import evaluate
from cskd_pipeline.evaluation.heads import HEADS, combined_heads
from cskd_pipeline.evaluation.score import Score

__all__ = ["HEADS", "Score", "combined_heads", "evaluate"]
