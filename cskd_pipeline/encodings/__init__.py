"""How a teacher's dense and global logits become fixed-size rows of bytes, and back."""

from cskd_pipeline.encodings.base import EncodedRows, Encoding, FieldSpec
from cskd_pipeline.encodings.full import FullEncoding
from cskd_pipeline.encodings.hard import HardEncoding
from cskd_pipeline.encodings.table import ENCODINGS, encoding_from_json

__all__ = [
    "ENCODINGS",
    "EncodedRows",
    "Encoding",
    "FieldSpec",
    "FullEncoding",
    "HardEncoding",
    "encoding_from_json",
]
