"""How a teacher's logits and features become stored bytes, and targets again."""

from cskd_pipeline.labels.base import Encoding, FieldSpec, Records, StoredRows
from cskd_pipeline.labels.by_name import ENCODINGS, encoding_from_json, encodings_from_json, encodings_to_json
from cskd_pipeline.labels.features import PooledEncoding, TokensEncoding, measure_channels
from cskd_pipeline.labels.full import FullEncoding
from cskd_pipeline.labels.hard import HardEncoding
from cskd_pipeline.labels.soft import SoftEncoding
from cskd_pipeline.labels.truth import TruthEncoding

__all__ = [
    "ENCODINGS",
    "Encoding",
    "FieldSpec",
    "FullEncoding",
    "HardEncoding",
    "PooledEncoding",
    "Records",
    "SoftEncoding",
    "StoredRows",
    "TokensEncoding",
    "TruthEncoding",
    "encoding_from_json",
    "encodings_from_json",
    "encodings_to_json",
    "measure_channels",
]
