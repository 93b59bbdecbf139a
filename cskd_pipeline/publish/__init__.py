"""Publishing: copies of stores, with a data set card for the Hugging Face Hub."""

from cskd_pipeline.publish.card import card_text, require_license, write_card
from cskd_pipeline.publish.copying import Copied, copy_seeds, require_apart

__all__ = ["Copied", "card_text", "copy_seeds", "require_apart", "require_license", "write_card"]
