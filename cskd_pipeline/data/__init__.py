"""Data sets: what one is, where its files lie, its canonical order, and each image by its index, exactly as stored.

Whatever reads or writes files raises `RetryError` where the disk or the object storage refuses or is out of reach.
"""

from cskd_pipeline.data.build import build_index
from cskd_pipeline.data.class_forms import class_forms
from cskd_pipeline.data.decode import Box
from cskd_pipeline.data.manifest import Manifest, Split, load_manifest, manifest_names, read_manifest
from cskd_pipeline.data.opening import (
    data_source,
    find_split,
    is_index,
    known_classes,
    open_index,
    open_split,
    remarks,
)
from cskd_pipeline.data.pack import pack
from cskd_pipeline.data.parquet import is_parquet
from cskd_pipeline.data.sample_index import SampleIndex
from cskd_pipeline.data.shapes import write_shapes
from cskd_pipeline.data.shards import is_pattern
from cskd_pipeline.data.source import ROOT_VARIABLE, DataSource, evaluation_split, resolve_data

__all__ = [
    "ROOT_VARIABLE",
    "Box",
    "DataSource",
    "Manifest",
    "SampleIndex",
    "Split",
    "build_index",
    "class_forms",
    "data_source",
    "evaluation_split",
    "find_split",
    "is_index",
    "is_parquet",
    "is_pattern",
    "known_classes",
    "load_manifest",
    "manifest_names",
    "open_index",
    "open_split",
    "pack",
    "read_manifest",
    "remarks",
    "resolve_data",
    "write_shapes",
]
