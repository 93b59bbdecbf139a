"""The manifests that ship with cskd-pipeline, as package data; `cskd_pipeline.manifest` reads them."""
