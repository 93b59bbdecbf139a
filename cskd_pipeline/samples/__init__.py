"""The images of a data set: their canonical order, and each by its index, exactly as stored."""

from cskd_pipeline.samples.build import build_index
from cskd_pipeline.samples.decode import decode_rgb
from cskd_pipeline.samples.open_split import open_index, open_split
from cskd_pipeline.samples.sample_index import SampleIndex
from cskd_pipeline.samples.shapes import write_shapes

__all__ = ["SampleIndex", "build_index", "decode_rgb", "open_index", "open_split", "write_shapes"]
