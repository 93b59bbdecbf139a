"""The canary: a checksum of a crop's pixels, stored with its labels."""

from __future__ import annotations

import google_crc32c
import numpy as np
from numpy.typing import NDArray


def crop_crc(crop: NDArray[np.uint8]) -> int:
    """crc32c of a rendered crop's uint8 [3, S, S] pixels in C order."""
    return int(google_crc32c.value(crop.tobytes()))
