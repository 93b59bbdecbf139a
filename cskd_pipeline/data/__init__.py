"""Data sets: what one is, where its files lie, its canonical order, and each image by its index, exactly as stored."""

from cskd_pipeline.data.build import build_index
from cskd_pipeline.data.catalogue import load_manifest, manifest_names, read_manifest
from cskd_pipeline.data.class_list import read_class_list
from cskd_pipeline.data.decode import decode_rgb
from cskd_pipeline.data.manifest import Manifest, Split
from cskd_pipeline.data.open_split import open_index, open_split
from cskd_pipeline.data.sample_index import SampleIndex
from cskd_pipeline.data.shapes import write_shapes
from cskd_pipeline.data.source import DataSource, evaluation_split, resolve_data

__all__ = [
    "DataSource",
    "Manifest",
    "SampleIndex",
    "Split",
    "build_index",
    "decode_rgb",
    "evaluation_split",
    "load_manifest",
    "manifest_names",
    "open_index",
    "open_split",
    "read_class_list",
    "read_manifest",
    "resolve_data",
    "write_shapes",
]
