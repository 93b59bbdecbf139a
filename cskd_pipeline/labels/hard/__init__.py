"""Hard targets: the class that wins at every position, exact for every ratio of a schedule."""

from cskd_pipeline.labels.hard.encoding import HardEncoding

__all__ = ["HardEncoding"]
