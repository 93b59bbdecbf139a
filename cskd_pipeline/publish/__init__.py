"""Publishing: copies of stores, with a data set card for the Hugging Face Hub, and cards of models."""

from cskd_pipeline.publish.card import require_license, write_card
from cskd_pipeline.publish.copying import Copied, copy_seeds
from cskd_pipeline.publish.model_card import model_card

__all__ = ["Copied", "copy_seeds", "model_card", "require_license", "write_card"]
