"""What a data set is: shipped manifests, the user's own, and folders or tar shards that need none."""

from cskd_pipeline.manifest.catalogue import load_manifest, manifest_names, read_manifest
from cskd_pipeline.manifest.class_list import read_class_list
from cskd_pipeline.manifest.manifest import Manifest, Split
from cskd_pipeline.manifest.source import DataSource, evaluation_split, resolve_data

__all__ = [
    "DataSource",
    "Manifest",
    "Split",
    "evaluation_split",
    "load_manifest",
    "manifest_names",
    "read_class_list",
    "read_manifest",
    "resolve_data",
]
