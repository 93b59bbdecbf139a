"""Soft targets: the likeliest classes of every position and of the global output, and the mass of all others."""

from cskd_pipeline.labels.soft.encoding import SoftEncoding

__all__ = ["SoftEncoding"]
