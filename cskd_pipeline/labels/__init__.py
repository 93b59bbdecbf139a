"""How a teacher's dense and global logits become stored bytes, and targets again."""

from cskd_pipeline.labels.base import Encoding, FieldSpec, Records, StoredRows
from cskd_pipeline.labels.by_name import ENCODINGS, encoding_from_json, encodings_from_json, encodings_to_json
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
    "Records",
    "SoftEncoding",
    "StoredRows",
    "TruthEncoding",
    "encoding_from_json",
    "encodings_from_json",
    "encodings_to_json",
]
