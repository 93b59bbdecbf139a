"""Published experiments as data: the settings, the paper, the command and the number it should reach."""

from cskd_pipeline.presets.published import PRESETS, Preset, find_preset

__all__ = ["PRESETS", "Preset", "find_preset"]
