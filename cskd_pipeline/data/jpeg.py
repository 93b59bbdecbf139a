"""Parts of a JPEG, decoded faster than Pillow does where that gives the same pixels.

simplejpeg and Pillow both hold libjpeg-turbo, which gives the same bits whichever of them asks. What simplejpeg is not
sure of is left to Pillow: inks, subsampling that versions of the library smooth differently, and every file with a
flaw, so that Pillow alone decides what is refused and what is forgiven.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import simplejpeg
from numpy.typing import NDArray

_SIMPLE = {"Gray", "444", "422", "420"}


class Box(NamedTuple):
    """A part of an image, in pixels; it lies inside."""

    top: int
    left: int
    height: int
    width: int

    @property
    def rows(self) -> slice:
        """As an index."""
        return slice(self.top, self.top + self.height)

    @property
    def columns(self) -> slice:
        """As an index."""
        return slice(self.left, self.left + self.width)


def decode_parts(data: bytes, boxes: Sequence[Box], *, size: tuple[int, int]) -> list[NDArray[np.uint8]] | None:
    """uint8 [box.height, box.width, 3] RGB for each box; None where Pillow is to decode, or to say what is wrong.

    Args:
        data: an encoded image of any kind.
        boxes: the parts.
        size: (height, width) that the image is said to have.
    """
    if not data.startswith(b"\xff\xd8\xff"):
        return None
    try:
        height, width, colours, subsampling = simplejpeg.decode_jpeg_header(data)
        if (height, width) != size or colours not in ("YCbCr", "Gray") or subsampling not in _SIMPLE:
            return None
        whole: NDArray[np.uint8] = simplejpeg.decode_jpeg(data, "RGB")
    except ValueError:  # strict as it is, it refuses what Pillow may forgive
        return None
    return [whole[box.rows, box.columns] for box in boxes]
