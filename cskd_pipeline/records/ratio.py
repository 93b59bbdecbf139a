"""The unit in which a schedule's ratio r is counted."""

RATIO_STEPS = 1 << 16
"""r is a multiple of 1/65536: r and 1 - r are then both exact in fp32, and a uint16 names every step but one."""
