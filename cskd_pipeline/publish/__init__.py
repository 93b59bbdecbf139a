"""Copies of stores to publish, with the card that a data set on the Hugging Face Hub begins with."""

from cskd_pipeline.publish.card import card_text, require_license, write_card
from cskd_pipeline.publish.copying import Copied, copy_seeds, require_apart

__all__ = ["Copied", "card_text", "copy_seeds", "require_apart", "require_license", "write_card"]
