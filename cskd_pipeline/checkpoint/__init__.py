"""Checkpoints: a resumable training state, and exported models. Each file is replaced whole or not at all."""

from cskd_pipeline.checkpoint.model_file import read_metadata, save_model
from cskd_pipeline.checkpoint.state_file import load_state, save_state

__all__ = ["load_state", "read_metadata", "save_model", "save_state"]
