"""Publishing: copies of stores, with a data set card for the Hugging Face Hub."""

from cskd_pipeline.publish.card import require_license, write_card
from cskd_pipeline.publish.copying import Copied, copy_seeds

__all__ = ["Copied", "copy_seeds", "require_license", "write_card"]
