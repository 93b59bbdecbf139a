"""Encodings of what a teacher shows of its inside: the pooled feature, and patch tokens of some layers."""

from cskd_pipeline.labels.features.pooled import PooledEncoding
from cskd_pipeline.labels.features.quantise import measure_channels
from cskd_pipeline.labels.features.tokens import TokensEncoding

__all__ = ["PooledEncoding", "TokensEncoding", "measure_channels"]
