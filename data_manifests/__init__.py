"""The manifests that ship with cskd-pipeline, as package data; `cskd_pipeline.data` reads them."""
